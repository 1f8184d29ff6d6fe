"""Tells what a checkpoint holds, and the config of a backbone for it."""
import argparse
import sys


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='published or native checkpoint')
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse_args(argv)
    from shiftwise_mm.engine.checkpoint_files import inspect_file
    try:
        print(inspect_file(args.src))
    except (ValueError, OSError) as error:
        text = ' '.join(str(error).split())
        print(f'inspect_checkpoint: {text}', file=sys.stderr)
        sys.exit(2)
