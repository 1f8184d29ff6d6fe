"""Tells what a checkpoint holds, and the config of a backbone for it."""
from shiftwise_mm.cli.inspect_checkpoint import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
