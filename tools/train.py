"""Trains by a config: a classifier, detector or segmentor.

The options are those of tools/train.py of MMDetection and MMSegmentation.
"""
from shiftwise_mm.cli.train import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
