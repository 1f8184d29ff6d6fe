"""Tests a checkpoint by a config: a classifier, detector or segmentor.

The options are those of tools/test.py of MMDetection and MMSegmentation.
"""
import argparse
import os
import sys

from mmengine.config import DictAction

from shiftwise_mm.datasets import DataError
from shiftwise_mm.engine.testing import (
    InputError,
    config_for_test,
    run_test,
)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        'config', help='path of the config, or shiftwise_mm::..., mmdet::...')
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument(
        '--work-dir', help='folder of the logs; default: work_dirs/CONFIG')
    parser.add_argument(
        '--out',
        help='write predictions: to this .pkl file, of a segmentor into this '
        'folder')
    parser.add_argument(
        '--show', action='store_true', help='show predictions in a window')
    parser.add_argument(
        '--show-dir', help='write painted predictions into this folder')
    parser.add_argument(
        '--wait-time', type=float, default=2,
        help='seconds that each window stays; default: 2')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='change the config, e.g. test_dataloader.batch_size=8')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none', help='launcher of a distributed run')
    parser.add_argument(
        '--tta', action='store_true', help='average over augmented inputs')
    # torch.distributed.launch gives the rank as an option.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0,
        help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        cfg = config_for_test(
            args.config, args.checkpoint, work_dir=args.work_dir,
            out=args.out, options=args.cfg_options, launcher=args.launcher,
            tta=args.tta, show=args.show, show_dir=args.show_dir,
            wait_time=args.wait_time)
        run_test(cfg)
    except (InputError, DataError) as error:
        # From a worker of the data loader an error comes with its traceback.
        line = str(error).splitlines()[-1].rpartition('DataError: ')[2]
        print(f'test: {line}', file=sys.stderr)
        sys.exit(2)
