"""The stacks of OpenMMLab that the project is tested on.

The maintained forks keep the import names of the originals, so the two can
not share an environment: each stack has a folder of its own.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from env_setup.process import SetupError
from env_setup.stamps import read_pins


class Stack(NamedTuple):
    """One stack: its name, and the distribution that brings ``mmcv``."""

    name: str
    mmcv: str

    @property
    def folder(self) -> str:
        """Name of the virtual environment's folder."""
        return '.venv' if self.name == 'stock' else f'.venv-{self.name}'

    def requirements(self, root: Path) -> list[Path]:
        """Lists the files of requirements, this stack's own last."""
        names = 'build', 'constraints', 'dev', 'runtime', self.name
        return [root / 'requirements' / f'{name}.txt' for name in names]

    def pins(self, root: Path) -> dict[str, str]:
        """Returns what to run on, by distribution.

        Raises:
            SetupError: A line is not an exact pin.
        """
        common, own = self.requirements(root)[-2:]
        return {**read_pins(common), **read_pins(own)}


STACKS = {stack.name: stack for stack in (Stack('stock', 'mmcv'),
                                          Stack('onedl', 'onedl-mmcv'))}


def choose_stack(env: Mapping[str, str]) -> Stack:
    """Returns the stack that ``STACK`` names, by default the stock one.

    Raises:
        SetupError: There is no such stack.
    """
    name = env.get('STACK') or 'stock'
    if name not in STACKS:
        raise SetupError(f'STACK={name} is not known; there are '
                         f'{" and ".join(STACKS)}')
    return STACKS[name]
