"""Draws the curves of trainings out of mmengine's logs."""
from shiftwise_mm.cli.plot_curves import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
