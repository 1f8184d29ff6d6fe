"""Draws effective receptive fields of backbones side by side."""
from shiftwise_mm.cli.plot_erf import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
