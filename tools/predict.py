"""Predicts on images with a detector or segmentor: pictures and JSON."""
from shiftwise_mm.cli.predict import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
