r"""Short convolutions with fewer multiplications (Toom and Cook, Winograd).

``m`` neighbouring outputs of a filter with ``n`` taps need ``m + n - 1``
products instead of ``m * n``:

.. math:: y = A\,[(G w) \odot (B x)], \qquad y_i = \sum_j w_j x_{i+j}

with ``x`` of length ``a = m + n - 1``. Its gradients use the same matrices:
``B`` becomes ``A`` and the reverse. Source: Lavin and Gray, "Fast Algorithms
for Convolutional Neural Networks", arXiv 1509.09308.
"""
from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import lcm

__all__ = ['matrices']

_POINTS = (0, 1, -1, 2, -2, Fraction(1, 2), Fraction(-1, 2))


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Gauss-Jordan elimination, exact."""
    size = len(matrix)
    rows = [
        row + [Fraction(int(i == j)) for j in range(size)]
        for i, row in enumerate(matrix)
    ]
    for i in range(size):
        pivot = next(r for r in range(i, size) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for r in range(size):
            if r != i:
                rows[r] = [
                    x - rows[r][i] * y
                    for x, y in zip(rows[r], rows[i], strict=True)
                ]
    return [row[size:] for row in rows]


def _evaluation(points: tuple, terms: int) -> list[list[Fraction]]:
    """A polynomial's values at the points and at infinity."""
    rows = [[Fraction(p)**i for i in range(terms)] for p in points]
    return [*rows, [Fraction(int(i == terms - 1)) for i in range(terms)]]


@cache
def matrices(outputs: int, taps: int) -> tuple[list, list, list]:
    """``(A, G, B)`` for ``outputs`` outputs of a filter with ``taps`` taps.

    Args:
        outputs (int): ``m``.
        taps (int): ``n``; ``m + n - 1`` is at most 8.

    Returns:
        tuple: Lists of rows of floats: ``A`` ``(m, a)``, ``G`` ``(a, n)``,
        ``B`` ``(a, a)``, the last of integers and few entries.
    """
    size = outputs + taps - 1
    points = _POINTS[:size - 1]
    a = list(zip(*_evaluation(points, outputs), strict=True))
    g = _evaluation(points, taps)
    b = [list(row) for row in zip(*_inverse(_evaluation(points, size)),
                                  strict=True)]
    for q in range(size):  # the fractions go to the side of the weights
        scale = lcm(*(value.denominator for value in b[q]))
        b[q] = [value * scale for value in b[q]]
        g[q] = [value / scale for value in g[q]]
    return tuple([[float(value) for value in row] for row in matrix]
                 for matrix in (a, g, b))
