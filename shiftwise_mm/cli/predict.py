"""Predicts on images with a detector or segmentor: pictures and JSON.

The exit code is 0, 1 if unreadable images were skipped, or 2 if an argument
cannot be used. The last line printed is ``predict: {json}``.
"""
from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings


def parse_args(argv=None) -> argparse.Namespace:
    """The options; ends the process with code 2 if they are wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.error = lambda message: parser.exit(2, f'predict: {message}\n')
    parser.add_argument(
        'config', help='path of the config, or shiftwise_mm::FOLDER/FILE, '
        'mmdet::FOLDER/FILE, mmseg::FOLDER/FILE')
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    parser.add_argument(
        'inputs', nargs='+', metavar='INPUT',
        help='image, folder of images at any depth, or pattern such as '
        '"photos/**/*.png"')
    parser.add_argument(
        '--out', required=True, metavar='DIR',
        help='folder for vis/, preds/ and summary.json')
    parser.add_argument(
        '--device', help='such as cuda:0; default: an accelerator, else cpu')
    parser.add_argument(
        '--score-thr', type=float, default=.3, metavar='SCORE',
        help='detections from this score on are painted and counted (the JSON '
        'has all); default: 0.3')
    parser.add_argument(
        '--batch-size', type=int, default=1, metavar='N',
        help='images that go through the model together; default: 1')
    parser.add_argument(
        '--no-pictures', action='store_true', help='write no vis/')
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Exit code: 1 if images were skipped, 2 if the input is wrong."""
    from mmengine.utils import ProgressBar

    from shiftwise_mm.engine.prediction import predict
    bar = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = ProgressBar(total, file=sys.stderr)
        elif done > bar.completed:
            bar.update(done - bar.completed)

    try:
        summary = predict(
            args.config, args.checkpoint, args.inputs, args.out,
            device=args.device, score_thr=args.score_thr,
            batch_size=args.batch_size, pictures=not args.no_pictures,
            progress=progress)
    except (ValueError, TypeError, OSError) as error:
        print('\n' * (bar is not None) + 'predict:', *str(error).split(),
              file=sys.stderr)
        return 2
    print(file=sys.stderr)
    for image in summary.skipped:
        print(f'predict: skipped {image["file"]}: {image["reason"]}',
              file=sys.stderr)
    print('predict:', json.dumps(dict(
        images=len(summary.images), skipped=len(summary.skipped),
        out=args.out)))
    return 1 if summary.skipped else 0


def main(argv=None) -> None:
    """The command."""
    args = parse_args(argv)
    with warnings.catch_warnings():
        # Those of the packages below would tear the bar.
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)
        try:
            code = run(args)
        finally:
            logging.disable(logging.NOTSET)
    sys.exit(code)
