"""GELU of vectors, as kernels of the CPU take it in."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

__all__ = ['gelu']

# The normal distribution's CDF is 1/2 + x P(x^2) / Q(x^2), to 2e-8 up to
# EDGE: fitted by least squares with Lawson's weights. Behind it is 0 or 1.
EDGE = 5.6
P = (0.3989422718696924, 0.033928716701223174, 0.004677325689648763,
     0.00016892534974391455, 6.289689727332442e-06, 2.2297283490101153e-08)
Q = (1.0, 0.25171300756195397, 0.02867736359852803, 0.0018854699891601267,
     7.334262520230197e-05, 1.1796466367416278e-06)


@cache
def gelu():
    r"""The device function :math:`x\,\Phi(x)`, exact, of vectors of f32."""
    import taichi as ti

    @ti.func
    def polynomial(t, t2, t4, factors: ti.template()):
        """By pairs: their chain of operations is half as long."""
        return ((factors[0] + factors[1] * t) +
                (factors[2] + factors[3] * t) * t2 +
                (factors[4] + factors[5] * t) * t4)

    @ti.func
    def function(x):
        t = x * x
        t2 = t * t
        t4 = t2 * t2
        below = 0.5 + x * polynomial(t, t2, t4, ti.static(P)) / polynomial(
            t, t2, t4, ti.static(Q))
        below = ti.select(x >= EDGE, 1.0, below)
        return x * ti.select(x <= -EDGE, 0.0, below)

    return function
