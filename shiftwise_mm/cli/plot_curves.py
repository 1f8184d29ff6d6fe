"""Draws the curves of trainings out of mmengine's logs."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_args(argv=None) -> argparse.Namespace:
    """The options; ends the process with code 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(2, f'plot_curves: {message}\n')
    parser.add_argument(
        'runs', nargs='+', metavar='RUN',
        help='folder of a run, resumed or not, or its vis_data/scalars.json; '
        'with LABEL= before it, how it is called')
    parser.add_argument('--out', required=True, metavar='PNG',
                        help='picture to write, .png, .svg or .pdf')
    parser.add_argument(
        '--keys', nargs='+', default=(), metavar='NAME',
        help='scalars to draw, such as "loss*" grad_norm bbox_mAP; default: '
        'losses, lr and the main metrics')
    parser.add_argument(
        '--smooth', type=int, default=1, metavar='N',
        help='draw the mean of up to N points around each, over the points; '
        'default: 1')
    return parser.parse_args(argv)


def _labelled(texts: list[str]) -> dict[str, str]:
    """Paths by label; folders are called by as much as tells them apart."""
    found, plain = {}, []
    for text in texts:
        label, equals, path = text.partition('=')
        if equals and label and not Path(text).exists():
            found[text] = label, path
        else:
            plain.append(text)
    for text in plain:
        parts = Path(text).absolute().parts
        if parts[-1] == 'scalars.json':
            parts = parts[:-1]
        if parts[-1] == 'vis_data':
            parts = parts[:-1]
        others = [Path(other).absolute().parts for other in plain
                  if other != text]
        length = next((n for n in range(1, len(parts) + 1) if all(
            other[-n:] != parts[-n:] for other in others)), len(parts))
        found[text] = '/'.join(parts[-length:]), text
    labels = [found[text][0] for text in texts]
    if len(set(labels)) < len(labels):
        raise ValueError('labels of runs must differ (LABEL=RUN), got '
                         + ', '.join(labels))
    return dict(found[text] for text in texts)


def _table(runs: dict, keys: list[str]) -> str:
    from shiftwise_mm.analysis.benchmark.report import Table

    def cell(run, key: str):
        values = [value for _, value in run.points(key)]
        if not values:
            return None
        return max(values) if key in run.metrics else values[-1]

    metrics = {key for run in runs.values() for key in run.metrics}
    names = {key: f'{key}, best' if key in metrics else f'{key}, last'
             for key in keys}
    return Table('Runs', [
        dict(run=label, iterations=run.iterations, parts=run.parts,
             **{names[key]: cell(run, key) for key in keys})
        for label, run in runs.items()]).markdown()


def main(argv=None) -> None:
    """The command."""
    args = parse_args(argv)
    from shiftwise_mm.analysis.curves import choose_keys, read_run
    from shiftwise_mm.visualization import plot_curves, save_figure
    try:
        runs = {label: read_run(path)
                for label, path in _labelled(args.runs).items()}
        keys = choose_keys(runs, args.keys)
        figure = plot_curves(
            {key: {label: run.points(key) for label, run in runs.items()}
             for key in keys}, args.smooth)
        save_figure(figure, args.out)
    except (ValueError, TypeError, OSError) as error:
        print('plot_curves:', *str(error).split(), file=sys.stderr)
        sys.exit(2)
    print(_table(runs, keys))
    print(args.out)
