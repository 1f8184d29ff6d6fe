"""``python -m shiftwise_mm.doctor``: the same as ``shiftwise doctor``."""
import sys

from .cli.doctor import main

if __name__ == '__main__':
    sys.exit(main())
