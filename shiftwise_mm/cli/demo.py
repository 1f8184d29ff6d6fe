"""Trains a small detector, evaluates it and writes pictures.

On generated images of shapes, or with ``--data`` on a folder in the COCO
format. The last line printed is ``demo: {json}``.
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
        help='folder with annotations/train.json, annotations/val.json, '
        'train/ and val/; default: generated shapes')
    parser.add_argument(
        '--backbone', default='shiftwise-nano',
        help='shiftwise-nano (default) or resnet18')
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
        help='folder of the results; default: work_dirs/demo/...')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    start = time.time()
    from shiftwise_mm.datasets import make_shapes_dataset, read_coco_folder
    from shiftwise_mm.engine.demo import (
        OWN_DATA_FACTOR,
        demo_config,
        image_scale,
        run_demo,
    )
    try:
        if args.data is None:
            print('demo: making images of shapes in data/shapes', flush=True)
            make_shapes_dataset('data/shapes')
        folder = read_coco_folder(args.data or 'data/shapes')
        parts = [folder.root.resolve().name, args.backbone, args.form]
        if args.sparse is not None:
            parts.append(f'sparse{args.sparse:g}')
        work_dir = args.work_dir or str(
            Path('work_dirs', 'demo', '_'.join(parts)))
        cfg = demo_config(folder, work_dir=work_dir, backbone=args.backbone,
                          form=args.form, max_iters=args.iters,
                          iters_factor=OWN_DATA_FACTOR if args.data else 1.,
                          resume=args.resume, sparse=args.sparse)
    except (ValueError, OSError) as error:
        print(f'demo: {error}', file=sys.stderr)
        sys.exit(2)
    for warning in folder.warnings:
        print(f'demo: {warning}', flush=True)
    print(
        f'demo: {folder.train.num_images} training and '
        f'{folder.val.num_images} validation images, classes '
        f'{", ".join(folder.classes)}, trained at '
        f'{"x".join(map(str, image_scale(folder)))}', flush=True)
    result = run_demo(cfg)
    seconds = round(time.time() - start, 1)
    print(f'demo: AP {result["bbox_mAP"]:.3f}, AP50 '
          f'{result["bbox_mAP_50"]:.3f} on the validation images, '
          f'{seconds:.0f} s in all')
    if 'density' in result:
        print(f'demo: {result["density"]:.4f} of the small kernels kept')
    print(f'demo: checkpoint {result["checkpoint"]}')
    print(f'demo: pictures (ground truth left, detections right) '
          f'{result["pictures"]}')
    metrics = {name: result.pop(name) for name in ('bbox_mAP', 'bbox_mAP_50')}
    print('demo: ' + json.dumps({**metrics, 'seconds': seconds, **result}),
          flush=True)
