"""Tells which small kernels a checkpoint keeps, where, and what that saves."""
from shiftwise_mm.cli.sparsity_report import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
