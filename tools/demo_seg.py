"""Trains a small segmentor, evaluates it and writes pictures.

On generated images of shapes, or with ``--data`` on a folder of images and
label maps. The last line printed is ``demo-seg: {json}``.
"""
import os

if __name__ == '__main__':  # as shiftwise does it, before torch is imported
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
from shiftwise_mm.cli.demo_seg import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
