"""Tells what works in this environment, and the command that mends the rest.

Exit code 1 if something is broken that the installed features need.
"""
import sys

from shiftwise_mm.cli.doctor import main, parse_args  # noqa: F401

if __name__ == '__main__':
    sys.exit(main())
