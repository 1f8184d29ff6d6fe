"""GELU of vectors and its slope, as kernels of the CPU take them in."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

__all__ = ['gelu', 'gelu_slope']

# The normal distribution's CDF is 1/2 + x P(x^2) / Q(x^2), to 2e-8 up to
# EDGE: fitted by least squares with Lawson's weights. Behind it is 0 or 1.
EDGE = 5.6
P = (0.3989422718696924, 0.033928716701223174, 0.004677325689648763,
     0.00016892534974391455, 6.289689727332442e-06, 2.2297283490101153e-08)
Q = (1.0, 0.25171300756195397, 0.02867736359852803, 0.0018854699891601267,
     7.334262520230197e-05, 1.1796466367416278e-06)

# The slope of GELU likewise, to 4e-9 up to SLOPE_EDGE.
SLOPE_EDGE = 6.
SLOPE_P = (0.7978845311646718, -0.022370999738968573, 0.013857330233476337,
           0.0002027359671015944, 3.409190235472076e-05,
           9.225433606879388e-07, 1.704650404822462e-08)
SLOPE_Q = (1.0, 0.3052950714164674, 0.0441336866704931, 0.003971521432503282,
           0.00024532536426134934, 1.0307791919100174e-05,
           3.3898286209862644e-07, 1.3147766572085443e-09)


@cache
def _quotient():
    """The device function :math:`1/2 + x P(x^2) / Q(x^2)`, of 6 to 8 factors
    each.
    """
    import taichi as ti

    @ti.func
    def polynomial(t, t2, t4, factors: ti.template()):
        """By pairs: their chain of operations is half as long."""
        high = factors[4] + factors[5] * t
        if ti.static(len(factors) == 7):
            high += factors[6] * t2
        if ti.static(len(factors) == 8):
            high += (factors[6] + factors[7] * t) * t2
        return ((factors[0] + factors[1] * t) +
                (factors[2] + factors[3] * t) * t2 + high * t4)

    @ti.func
    def quotient(x, top: ti.template(), bottom: ti.template()):
        t = x * x
        t2 = t * t
        t4 = t2 * t2
        return 0.5 + x * polynomial(t, t2, t4, top) / polynomial(
            t, t2, t4, bottom)

    return quotient


@cache
def gelu():
    r"""The device function :math:`x\,\Phi(x)`, exact, of vectors of f32."""
    import taichi as ti
    quotient = _quotient()

    @ti.func
    def function(x):
        below = quotient(x, ti.static(P), ti.static(Q))
        below = ti.select(x >= EDGE, 1.0, below)
        return x * ti.select(x <= -EDGE, 0.0, below)

    return function


@cache
def gelu_slope():
    r"""The device function :math:`\Phi(x) + x\,\varphi(x)`, of vectors."""
    import taichi as ti
    quotient = _quotient()

    @ti.func
    def function(x):
        slope = quotient(x, ti.static(SLOPE_P), ti.static(SLOPE_Q))
        slope = ti.select(x >= SLOPE_EDGE, 1.0, slope)
        return ti.select(x <= -SLOPE_EDGE, 0.0, slope)

    return function
