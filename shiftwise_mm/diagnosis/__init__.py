"""What works in an environment, and the command that mends what does not."""
from .check import Check
from .diagnose import Diagnosis, diagnose

__all__ = ['Check', 'Diagnosis', 'diagnose']
