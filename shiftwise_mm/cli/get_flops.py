"""Counts parameters and multiply-adds of the model of a config."""
import argparse
import sys
import warnings


def key_value(text: str) -> str:
    if '=' not in text:
        raise argparse.ArgumentTypeError(f'must be key=value, got {text!r}')
    return text


def parse_args(argv=None) -> argparse.Namespace:
    from mmengine.config import DictAction
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(2, f'get_flops: {message}\n')
    parser.add_argument(
        'config', help='config with a model: detector, segmentor or backbone; '
        'a path, or shiftwise_mm::..., mmdet::...')
    parser.add_argument('--shape', type=int, nargs=2, required=True,
                        metavar=('H', 'W'), help='size of the image')
    parser.add_argument(
        '--cfg-options', type=key_value, nargs='+', action=DictAction,
        help='overrides, e.g. model.backbone.num_paths=1')
    return parser.parse_args(argv)


def table(report) -> str:
    """The figures in lines, published beside what runs."""
    columns = [('counted', report.published)]
    if report.running is not None:
        columns = [('published', report.published),
                   (f'as it runs ({report.form})', report.running)]

    def row(label: str, name: str, unit: float, digits: int) -> str:
        values = [getattr(figures, name) for _, figures in columns]
        return label.ljust(24) + ''.join(
            (f'{value / unit:.{digits}f}' if value else '-').rjust(20)
            for value in values)

    rows = [' ' * 24 + ''.join(name.rjust(20) for name, _ in columns),
            row('parameters, M', 'params', 1e6, 3),
            row('  backbone', 'backbone_params', 1e6, 3),
            row('multiply-adds, G', 'macs', 1e9, 2),
            row('  backbone', 'backbone_macs', 1e9, 2)]
    if report.running is not None:
        rows.append(row('shift-adds, G additions', 'shift_adds', 1e9, 2))
    return '\n'.join(rows)


def main(argv=None) -> None:
    with warnings.catch_warnings():
        # Those of the packages below; they would hide an error's one line.
        warnings.simplefilter('ignore', UserWarning)
        args = parse_args(argv)
        from shiftwise_mm.analysis import count_config, read_config
        try:
            cfg = read_config(args.config, args.cfg_options)
            report = count_config(cfg, tuple(args.shape))
        except (ValueError, TypeError, KeyError, OSError,
                RuntimeError) as error:
            message = error.args[0] if isinstance(error, KeyError) else error
            print('get_flops:', *str(message).split(), file=sys.stderr)
            sys.exit(2)
    print(table(report))
