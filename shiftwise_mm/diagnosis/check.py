"""One finding about an environment."""
from __future__ import annotations

from dataclasses import dataclass

from .mends import mend_of

__all__ = ['ABSENT', 'BROKEN', 'OK', 'UNTESTED', 'Check', 'broken',
           'one_line']

OK = 'ok'
ABSENT = 'absent'
"""Not there, or cannot run here; nothing that is installed needs it."""
BROKEN = 'broken'
UNTESTED = 'untested'
"""Can run; whether it is right was not asked."""

_LONGEST = 300


@dataclass(frozen=True)
class Check:
    """A finding.

    Attributes:
        name: What was looked at.
        status: :data:`OK`, :data:`ABSENT`, :data:`BROKEN` or
            :data:`UNTESTED`.
        detail: In a line.
        mend: The command that mends it; empty where nothing has to be
            mended, or no command does.
    """

    name: str
    status: str
    detail: str = ''
    mend: str = ''


def one_line(error: BaseException) -> str:
    """Type and message of an error."""
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    return text if len(text) <= _LONGEST else f'{text[:_LONGEST]}...'


def broken(name: str, error: BaseException, package: str) -> Check:
    """What an error says of the thing called ``name``.

    Args:
        name (str): For the finding.
        error (BaseException): What was raised.
        package (str): Import name of the package that it came from.
    """
    return Check(name, BROKEN, one_line(error), mend_of(error, package))
