"""Swaps the backbone of all configs of MMDetection and MMSegmentation.

Each is checked in a process of its own; a run that was stopped continues.
"""
from shiftwise_mm.cli.check_swaps import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
