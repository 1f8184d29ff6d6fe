"""Swaps the backbone of all configs of MMDetection and MMSegmentation.

Each is checked in a process of its own; a run that was stopped continues.
"""
import argparse
import logging
import os
import sys
import warnings
from pathlib import Path


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


def run(args: argparse.Namespace) -> str:
    """Sweeps; the report."""
    from shiftwise_mm.swap.report import swap_report
    from shiftwise_mm.swap.sweep import list_configs, sweep
    configs = args.configs or [*list_configs('mmdet'),
                               *list_configs('mmseg')]
    rows = sweep(configs, args.backbone, args.work_dir, jobs=args.jobs,
                 seconds=args.seconds, memory=args.memory)
    command = ['python tools/check_swaps.py', f'--backbone {args.backbone}',
               *args.configs]
    if args.report:
        command.append(f'--report {args.report}')
    return swap_report(rows, args.backbone, ' '.join(command))


def write(text: str, path: Path) -> None:
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_text(text, encoding='utf-8')
    temporary.replace(path)


def main(argv=None) -> None:
    args = parse_args(argv)
    with warnings.catch_warnings():
        # Those of the packages below would hide the one line.
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)
        from shiftwise_mm.swap import SwapError
        try:
            text = run(args)
            if args.report:
                write(text, Path(args.report))
        except (SwapError, OSError) as error:
            print(f'check_swaps: {error}', file=sys.stderr)
            sys.exit(2)
        finally:
            logging.disable(logging.NOTSET)
    if not args.report:
        print(text)
