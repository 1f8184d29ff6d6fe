"""The command lines, one module each: ``parse_args`` and ``main``."""
