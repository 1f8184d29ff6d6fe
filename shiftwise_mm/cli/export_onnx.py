"""Writes a model as ONNX, and compares it in onnxruntime."""
import argparse
import sys
import warnings


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.error = lambda message: parser.exit(2, f'export_onnx: {message}\n')
    parser.add_argument(
        'config', help='config of the model: a path, or mmdet::...')
    parser.add_argument(
        'checkpoint', help='its checkpoint, deployed or not: path or URL')
    parser.add_argument('out', help='file to write, NAME.onnx')
    parser.add_argument(
        '--part', default='model',
        help='model (default): a segmentor or classifier whole, a detector '
        'up to its raw heads; or backbone')
    parser.add_argument(
        '--shape', type=int, nargs=2, default=(512, 512),
        metavar=('H', 'W'), help='size of the image; default: 512 512')
    parser.add_argument(
        '--dynamic', action='store_true',
        help='leave batch, height and width free')
    parser.add_argument('--force', action='store_true',
                        help='overwrite the file')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    from shiftwise_mm.engine.export_onnx import export_onnx
    with warnings.catch_warnings():
        # Those of the packages below; they would hide an error's one line.
        warnings.simplefilter('ignore')
        try:
            done = export_onnx(
                args.config, args.checkpoint, args.out, part=args.part,
                shape=args.shape, dynamic=args.dynamic, force=args.force)
        except (ValueError, OSError) as error:
            text = ' '.join(str(error).split())
            if isinstance(error, FileExistsError):
                text += '; --force overwrites it'
            print(f'export_onnx: {text}', file=sys.stderr)
            sys.exit(2)
    print(done)


if __name__ == '__main__':
    main()
