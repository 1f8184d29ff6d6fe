"""No figure before all contestants agree."""
from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['Disagreement', 'check_near']

TOLERANCE = 1e-4  # of the largest value; float32 sums of up to 1e6 terms


class Disagreement(RuntimeError):
    """A contestant computes something else than the others."""


def check_near(contestant: str, what: str, actual: Tensor, expected: Tensor,
               tolerance: float = TOLERANCE, floor: float = 0.) -> None:
    """Compares a result with the expected one.

    Args:
        contestant (str): Whose result, for the message.
        what (str): Which result, for the message.
        actual, expected (Tensor): What is compared.
        tolerance (float): Largest error allowed, as a share of the largest
            expected value.
        floor (float): Stands in for the largest expected value where that is
            smaller: what cancels out has nothing to be compared with.

    Raises:
        Disagreement: If they differ, naming the contestant.
    """
    if actual.shape != expected.shape:
        raise Disagreement(f'{contestant}: {what} has shape '
                           f'{tuple(actual.shape)}, expected '
                           f'{tuple(expected.shape)}')
    with torch.no_grad():
        scale = max(expected.abs().max().item(), floor, 1e-30)
        error = (actual - expected).abs().max().item() / scale
    if not error <= tolerance:  # a NaN is no agreement either
        raise Disagreement(f'{contestant}: {what} differs by {error:.2g} of '
                           f'the largest value, allowed {tolerance:g}')
