"""Tests a checkpoint by a config: a classifier, detector or segmentor.

The options are those of tools/test.py of MMDetection and MMSegmentation.
"""
from shiftwise_mm.cli.test import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
