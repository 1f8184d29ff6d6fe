"""Swaps the backbone of all configs of MMDetection and MMSegmentation.

Each is checked in a process of its own; a run that was stopped continues.
"""
import argparse
import logging
import os
import sys
from pathlib import Path

from shiftwise_mm.swap import SwapError
from shiftwise_mm.swap.report import swap_report
from shiftwise_mm.swap.sweep import list_configs, sweep


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        'configs', nargs='*',
        help='paths or mmdet::..., mmseg::...; default: all that the two '
        'packages ship')
    parser.add_argument(
        '--backbone', default='shiftwise-tiny', help='name of the backbone')
    parser.add_argument(
        '--work-dir', default='work_dirs/swaps',
        help='folder of the results so far; default: work_dirs/swaps')
    parser.add_argument(
        '--jobs', type=int, default=1, help='processes at a time; default: 1')
    parser.add_argument(
        '--seconds', type=float, default=900,
        help='limit of time for a config; default: 900')
    parser.add_argument(
        '--memory', type=float, default=12,
        help='limit of memory for a config, in GB; default: 12')
    parser.add_argument('--report', help='write the table to this file')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    logging.disable(logging.WARNING)
    configs = args.configs or [*list_configs('mmdet'),
                               *list_configs('mmseg')]
    try:
        rows = sweep(configs, args.backbone, args.work_dir, jobs=args.jobs,
                     seconds=args.seconds, memory=args.memory)
    except SwapError as error:
        print(f'check_swaps: {error}', file=sys.stderr)
        sys.exit(2)
    command = ' '.join(['python tools/check_swaps.py',
                        f'--backbone {args.backbone}', *args.configs])
    text = swap_report(rows, args.backbone, command)
    if args.report:
        path = Path(args.report)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}')
        temporary.write_text(text, encoding='utf-8')
        temporary.replace(path)
    else:
        print(text)


if __name__ == '__main__':
    main()
