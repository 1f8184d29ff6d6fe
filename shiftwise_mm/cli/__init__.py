"""The command lines: ``shiftwise SUB-COMMAND``, each a module of its own."""
from .console import main

__all__ = ['main']
