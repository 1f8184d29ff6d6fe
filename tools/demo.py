"""Trains a small detector, evaluates it and writes pictures.

On generated images of shapes, or with ``--data`` on a folder in the COCO
format. The last line printed is ``demo: {json}``.
"""
import os

if __name__ == '__main__':  # as shiftwise does it, before torch is imported
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
from shiftwise_mm.cli.demo import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
