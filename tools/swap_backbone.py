"""Writes short configs that put another backbone into existing ones."""
from shiftwise_mm.cli.swap_backbone import main, parse_args  # noqa: F401

if __name__ == '__main__':
    main()
