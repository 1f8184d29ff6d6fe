"""Writes published weights in our names, deployed, or shift-wise (SLaK)."""
import argparse
import sys


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='published or native checkpoint')
    parser.add_argument('dst', help='file to write')
    parser.add_argument(
        '--to', default='native',
        help='native (default), deploy, or shiftwise (SLaK)')
    parser.add_argument(
        '--config',
        help='config whose model has the backbone; default: the options that '
        'the file tells')
    parser.add_argument('--force', action='store_true',
                        help='overwrite the file')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    from shiftwise_mm.engine.checkpoint_files import convert_file
    try:
        conversion = convert_file(
            args.src, args.dst, to=args.to, config=args.config,
            force=args.force)
    except (ValueError, OSError) as error:
        text = ' '.join(str(error).split())
        if isinstance(error, FileExistsError):
            text += '; --force overwrites it'
        print(f'convert_checkpoint: {text}', file=sys.stderr)
        sys.exit(2)
    print(conversion)
    print(f'wrote {args.dst}')
