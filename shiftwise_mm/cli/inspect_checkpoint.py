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
        text = inspect_file(args.src)
    except (ValueError, OSError) as error:
        print('inspect_checkpoint:', *str(error).split(), file=sys.stderr)
        sys.exit(2)
    print(text)
