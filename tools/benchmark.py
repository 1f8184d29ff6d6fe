"""Measures the operator and the backbones against all peers, side by side.

Tables go to stdout in Markdown, raw figures to --json. No figure is printed
unless the outputs and gradients of all contestants agree.
"""
from shiftwise_mm.cli.benchmark import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
