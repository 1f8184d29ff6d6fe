"""Writes published weights in our names, deployed, or shift-wise (SLaK)."""
from shiftwise_mm.cli.convert_checkpoint import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
