"""Draws where the taps of a shift-wise convolution land."""
from shiftwise_mm.cli.plot_shifts import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
