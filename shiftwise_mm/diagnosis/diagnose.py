"""The whole diagnosis of an environment."""
from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from .check import BROKEN, UNTESTED, Check
from .environment import check_stack, check_versions, compilers, versions
from .probes import PROBES
from .process import run_probes

__all__ = ['Diagnosis', 'diagnose']


@dataclass(frozen=True)
class Diagnosis:
    """What works here, and what not; ``str()`` is what is shown.

    Attributes:
        versions: By distribution; None for what is absent.
        compilers: What each says of itself; None for what is absent.
        checks: All findings.
        seconds: How long it took.
    """

    versions: dict[str, str | None]
    compilers: dict[str, str | None]
    checks: tuple[Check, ...]
    seconds: float

    @property
    def broken(self) -> tuple[Check, ...]:
        """What has to be mended."""
        return tuple(c for c in self.checks if c.status == BROKEN)

    def to_dict(self) -> dict:
        """For JSON."""
        return dict(healthy=not self.broken, **asdict(self))

    def __str__(self) -> str:
        width = max(map(len, (*self.versions, *self.compilers,
                              *(check.name for check in self.checks))))
        lines = ['versions']
        lines += [f'  {name:<{width}}  {version or "-"}'
                  for name, version in self.versions.items()]
        lines += ['', 'compilers']
        lines += [f'  {name:<{width}}  {text or "-"}'
                  for name, text in self.compilers.items()]
        lines += ['', 'checks']
        for check in self.checks:
            lines.append(f'  {check.name:<{width}}  {check.status:<8}  '
                         f'{check.detail}'.rstrip())
            if check.mend:
                verb = 'mend it' if check.status == BROKEN else 'to have it'
                lines.append(f'  {"":<{width}}  {"":<8}  {verb}: '
                             f'{check.mend}')
        lines += ['', self.verdict]
        return '\n'.join(lines)

    @property
    def verdict(self) -> str:
        """The last line: whether anything is broken, and what."""
        if not self.broken:
            untested = [check.name for check in self.checks
                        if check.status == UNTESTED]
            took = f'({len(self.checks)} checks in {self.seconds:.0f} s)'
            if untested:
                return (f'All that was tested works {took}. Not tested: '
                        f'{", ".join(untested)}; --full tests it.')
            return f'All that is installed works {took}.'
        names = ', '.join(check.name for check in self.broken)
        return f'Broken: {names}. See "mend it" above.'


def diagnose(full: bool = False) -> Diagnosis:
    """Looks at all that the package can use.

    Takes as long as importing all of it, and about a second for the tests of
    the operators.

    Args:
        full (bool): Whether to test the fused form as well, whose kernels
            Taichi compiles first, for some 20 seconds. Defaults to False.
    """
    start = time.perf_counter()
    other = 'operators' if full else 'operators, full'
    checks = (check_stack(), *check_versions(),
              *run_probes([name for name in PROBES if name != other]))
    return Diagnosis(versions(), compilers(), checks,
                     round(time.perf_counter() - start, 1))
