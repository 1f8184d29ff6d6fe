"""Draws effective receptive fields of backbones side by side.

As RepLKNet's published scripts measure them: 1024 x 1024 pixels, log10, and
the areas that hold 20, 30, 50 and 99 percent of the contributions. The exit
code is 0, 1 if unreadable images were skipped, or 2 if an argument cannot be
used.
"""
from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from pathlib import Path

_PICTURE, _FIGURES = 'erf.png', 'erf.json'


def parse_args(argv=None) -> argparse.Namespace:
    """The options; ends the process with code 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.error = lambda message: parser.exit(2, f'plot_erf: {message}\n')
    parser.add_argument(
        'backbones', nargs='+', metavar='BACKBONE',
        help='shiftwise-tiny, slak-tiny, ... (a wrong name prints all), a '
        'config, or a registered type such as mmdet.ResNet; then, without '
        'spaces, ,checkpoint=FILE ,label=TEXT and arguments of the backbone: '
        'mmdet.ResNet,depth=50. Without a checkpoint the weights are random')
    parser.add_argument(
        '--images', nargs='+', required=True, metavar='INPUT',
        help='images, folders of images at any depth, patterns')
    parser.add_argument('--out', required=True, metavar='DIR',
                        help=f'folder for {_PICTURE} and {_FIGURES}')
    parser.add_argument(
        '--stage', type=int, default=-1, metavar='I',
        help='which of the feature maps, from 0; default: the last')
    parser.add_argument(
        '--size', type=int, default=1024, metavar='PIXELS',
        help='side to which images are resized; default: 1024')
    parser.add_argument(
        '--num-images', type=int, default=50, metavar='N',
        help='images at most, the first in the order of their paths; '
        'default: 50')
    parser.add_argument(
        '--device', help='such as cuda:0; default: cpu')
    return parser.parse_args(argv)


def _table(measured) -> str:
    from shiftwise_mm.analysis.benchmark.report import Table
    from shiftwise_mm.visualization.erf import percent
    return Table('Area that holds a share of the contributions', [
        {'backbone': m.backbone.label, **{
            f'{threshold:.0%}': f'{percent(square.area_ratio)} ({square.side})'
            for threshold, square in m.squares.items()}}
        for m in measured],
        ['Of the input; in brackets the side of the square in pixels.']
    ).markdown()


def run(args: argparse.Namespace) -> int:
    """Exit code: 1 if images were skipped, 2 if the input is wrong."""
    from mmengine.utils import ProgressBar

    from shiftwise_mm.analysis.erf import log_scores
    from shiftwise_mm.engine.receptive_field import (
        measure_fields,
        read_backbone,
    )
    from shiftwise_mm.visualization import plot_fields
    from shiftwise_mm.visualization.files import save_figure, whole_file
    bar = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = ProgressBar(total, file=sys.stderr)
        if done > bar.completed:
            bar.update(done - bar.completed)

    try:
        backbones = [read_backbone(text) for text in args.backbones]
        labels = [backbone.label for backbone in backbones]
        if len(set(labels)) < len(labels):
            raise ValueError('labels must differ (,label=TEXT), got '
                             + ' and '.join(labels))
        measured, skipped = measure_fields(
            backbones, args.images, stage=args.stage, size=args.size,
            num_images=args.num_images, device=args.device, progress=progress)
        out = Path(args.out)
        out.mkdir(parents=True, exist_ok=True)
        count = measured[0].field.images
        note = (f'{count} image{"s" * (count > 1)} of {args.size} x '
                f'{args.size} pixels; below each name the area that holds a '
                'share of the contributions')
        save_figure(plot_fields(
            {m.backbone.label: log_scores(m.field.scores) for m in measured},
            {m.backbone.label: {threshold: (s.side, s.area_ratio)
                                for threshold, s in m.squares.items()}
             for m in measured}, note), out / _PICTURE)
        with whole_file(out / _FIGURES) as part:
            part.write_text(json.dumps(dict(
                size=args.size, stage=args.stage,
                backbones=[m.as_dict() for m in measured],
                skipped=[dict(file=file, reason=reason)
                         for file, reason in skipped]), indent=1) + '\n')
    except (ValueError, TypeError, OSError) as error:
        print('\n' * (bar is not None) + 'plot_erf:', *str(error).split(),
              file=sys.stderr)
        return 2
    print(file=sys.stderr)
    for file, reason in skipped:
        print(f'plot_erf: skipped {file}: {reason}', file=sys.stderr)
    print(_table(measured))
    print(out / _PICTURE)
    return 1 if skipped else 0


def main(argv=None) -> None:
    """The command."""
    args = parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # those of the packages below
        logging.disable(logging.WARNING)
        try:
            code = run(args)
        finally:
            logging.disable(logging.NOTSET)
    sys.exit(code)
