"""Writes short configs that put another backbone into existing ones."""
import argparse
import logging
import sys
import warnings


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'configs', nargs='+', metavar='CONFIG',
        help='path of a config of MMDetection, MMSegmentation or your own, '
        'or mmdet::FOLDER/FILE, mmseg::FOLDER/FILE')
    parser.add_argument(
        '--backbone', required=True, metavar='NAME',
        help='shiftwise-tiny, slak-tiny, ...; a wrong name prints all')
    parser.add_argument(
        '--pretrained', metavar='FILE',
        help='weights of the backbone, a file or URL; published names are '
        'converted as they are loaded')
    parser.add_argument(
        '--out', default='.', metavar='DIR',
        help='folder of the new configs; default: the current one')
    parser.add_argument(
        '--check', action='store_true',
        help='build the model of each, train it for a step and predict, on '
        'noise')
    return parser.parse_args(argv)


def swap_one(config: str, args: argparse.Namespace) -> bool:
    """Writes and checks the config; whether the check passed."""
    from shiftwise_mm.swap import plan_swap, read_config, write_short_config
    from shiftwise_mm.swap.check import check_swap
    cfg = read_config(config)
    swap = plan_swap(cfg, args.backbone, pretrained=args.pretrained)
    path = write_short_config(cfg, swap, config, args.out)
    print(f'{path}: {swap.describe()}', flush=True)
    if not args.check:
        return True
    report = check_swap(read_config(str(path)), swap)
    if report.passed:
        print(f'{path}: {report.describe()}', flush=True)
    else:
        print(f'swap_backbone: {path}: the check failed: '
              f'{report.describe()}', file=sys.stderr)
    return report.passed


def run(args: argparse.Namespace) -> int:
    """Exit code: 2 if a config was refused, 1 if one failed its check."""
    from shiftwise_mm.swap import SwapError
    status = 0
    for config in args.configs:
        try:
            status = status if swap_one(config, args) else max(status, 1)
        except (SwapError, OSError) as error:
            text = ' '.join(str(error).split())
            print(f'swap_backbone: {config}: {text}', file=sys.stderr)
            status = 2
    return status


def main(argv=None) -> None:
    args = parse_args(argv)
    with warnings.catch_warnings():
        # Those of the packages below would hide the one line.
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)
        try:
            status = run(args)
        finally:
            logging.disable(logging.NOTSET)
    sys.exit(status)
