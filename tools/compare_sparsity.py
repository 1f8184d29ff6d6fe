"""Trains the demo's network densely and sparsely, and tells what came out.

On each data set once for each sparsity and seed. Runs that are complete are
not made again.
"""
import os

if __name__ == '__main__':  # as shiftwise does it, before torch is imported
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
from shiftwise_mm.cli.compare_sparsity import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
