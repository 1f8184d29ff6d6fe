"""``python -m shiftwise_mm``: the same as the command ``shiftwise``."""
import sys

from .cli import main

if __name__ == '__main__':
    sys.exit(main())
