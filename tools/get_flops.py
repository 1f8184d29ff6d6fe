"""Counts parameters and multiply-adds of the model of a config."""
from shiftwise_mm.cli.get_flops import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
