"""Trains by a config: a classifier, detector or segmentor.

The options are those of tools/train.py of MMDetection and MMSegmentation.
"""
import argparse
import os
import sys

from mmengine.config import DictAction

from shiftwise_mm.datasets import DataError
from shiftwise_mm.engine.training import (
    InputError,
    config_for_training,
    run_training,
)


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        'config', help='path of the config, or shiftwise_mm::..., mmdet::...')
    parser.add_argument(
        '--work-dir',
        help='folder of the logs and checkpoints; default: work_dirs/CONFIG')
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='auto|PATH',
        help='continue from this checkpoint; auto (the default of the '
        'option): from the last one in the work dir, if there is one')
    parser.add_argument(
        '--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true',
        help='scale the learning rate by the batch of all processes')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='change the config, e.g. train_dataloader.batch_size=4')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'),
        default='none', help='launcher of a distributed run')
    # torch.distributed.launch gives the rank as an option.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0,
        help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        cfg = config_for_training(
            args.config, work_dir=args.work_dir, resume=args.resume,
            amp=args.amp, auto_scale_lr=args.auto_scale_lr,
            options=args.cfg_options, launcher=args.launcher)
        run_training(cfg)
    except (InputError, DataError) as error:
        # From a worker of the data loader an error comes with its traceback.
        line = str(error).splitlines()[-1].rpartition('DataError: ')[2]
        print(f'train: {line}', file=sys.stderr)
        sys.exit(2)
