"""Trains a small segmentor, evaluates it and writes pictures.

On generated images of shapes, or with ``--data`` on a folder of images and
label maps. The last line printed is ``demo-seg: {json}``.
"""
import argparse
import json
import sys
import time
from pathlib import Path


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--data',
        help='folder with images/train/, images/val/ and label maps in '
        'annotations/train/, annotations/val/; default: generated shapes')
    parser.add_argument(
        '--form', default='auto',
        help='form of the shift-wise convolution: auto (default), fused, '
        'strip, or shift (convolution and shift-add)')
    parser.add_argument(
        '--sparse', type=float,
        help='share of the small kernels to train without, in [0, 1); '
        'default: dense')
    parser.add_argument(
        '--iters', type=int,
        help='training iterations; default: those of the recipe')
    parser.add_argument(
        '--resume', action='store_true',
        help='continue the run whose checkpoint is in the work dir')
    parser.add_argument(
        '--work-dir',
        help='folder of the results; default: work_dirs/demo-seg/...')
    return parser.parse_args(argv)


def read_data(data):
    from shiftwise_mm.datasets import (
        SHAPE_CLASSES,
        make_shapes_dataset,
        read_seg_folder,
    )
    if data is not None:
        return read_seg_folder(data)
    print('demo-seg: making images of shapes in data/shapes', flush=True)
    make_shapes_dataset('data/shapes')
    return read_seg_folder(
        'data/shapes', images='{}', maps='semantic/{}',
        classes=('background', *SHAPE_CLASSES))


def main(argv=None) -> None:
    args = parse_args(argv)
    start = time.time()
    from shiftwise_mm.engine.demo_seg import (
        OWN_DATA_FACTOR,
        demo_seg_config,
        run_demo_seg,
        seg_image_scale,
    )
    try:
        folder = read_data(args.data)
        parts = [folder.root.resolve().name, args.form]
        if args.sparse is not None:
            parts.append(f'sparse{args.sparse:g}')
        work_dir = args.work_dir or str(
            Path('work_dirs', 'demo-seg', '_'.join(parts)))
        cfg = demo_seg_config(
            folder, work_dir=work_dir, form=args.form, max_iters=args.iters,
            iters_factor=OWN_DATA_FACTOR if args.data else 1.,
            resume=args.resume, sparse=args.sparse)
    except (ValueError, OSError) as error:
        print(f'demo-seg: {error}', file=sys.stderr)
        sys.exit(2)
    for warning in folder.warnings:
        print(f'demo-seg: {warning}', flush=True)
    print(
        f'demo-seg: {folder.train.num_images} training and '
        f'{folder.val.num_images} validation images, classes '
        f'{", ".join(folder.classes)}, trained at '
        f'{"x".join(map(str, seg_image_scale(folder)))}', flush=True)
    result = run_demo_seg(cfg)
    seconds = round(time.time() - start, 1)
    miou = result.pop('mIoU')
    print(f'demo-seg: mIoU {miou:.3f} on the validation images, '
          f'{seconds:.0f} s in all')
    if 'density' in result:
        print(f'demo-seg: {result["density"]:.4f} of the small kernels kept')
    print(f'demo-seg: checkpoint {result["checkpoint"]}')
    print(f'demo-seg: pictures (ground truth left, prediction right) '
          f'{result["pictures"]}')
    print('demo-seg: ' + json.dumps(
        {'mIoU': miou, 'seconds': seconds, **result}), flush=True)
