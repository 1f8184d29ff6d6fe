r"""Squeeze and excitation of planes whose means are known, on the CPU.

.. math::
    z_c = y_c\ \sigma\big(U\,\mathrm{ReLU}(D \bar y + d) + u\big)_c

with the means :math:`\bar y` of an image's channels, which the kernel that
made the planes knows (:mod:`channel_strips`).
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

from .lanes import INDEX, layout

__all__ = ['excitation']


@cache
def excitation(lanes: int):
    """The device function.

    Args:
        lanes (int): Vector width, 8 or 16.
    """
    import taichi as ti
    vec = layout(3, lanes).vec

    @ti.func
    def load(source: ti.template(), at):
        return vec([source[(at & INDEX) + lane]
                    for lane in ti.static(range(lanes))])

    @ti.func
    def added(v):
        """The sum of the lanes."""
        total = v[0]
        for lane in ti.static(range(1, lanes)):
            total += v[lane]
        return total

    @ti.func
    def gates(means: ti.template(), frm, channels, hidden,
              down: ti.template(), down_bias: ti.template(),
              up: ti.template(), up_bias: ti.template(),
              room: ti.template(), at):
        """The factors of one image's channels; returns where in ``room``.

        ``hidden`` is a vector at least. From ``at`` on there is room for as
        many numbers, a vector more, and those of the channels.
        """
        for j in range(hidden):
            total = vec(0.0)
            for c in range(channels // lanes):
                total += load(down, j * channels + c * lanes) * load(
                    means, frm + c * lanes)
            value = added(total) + down_bias[j]
            room[at + j] = ti.select(value < 0.0, 0.0, value)
        # The last vector reaches back, and counts only what is left.
        whole = hidden // lanes
        left = hidden - whole * lanes
        for lane in range(lanes):
            room[at + hidden + lane] = ti.select(
                lane < lanes - left, 0.0, room[at + hidden - lanes + lane])
        to = at + hidden + lanes
        for c in range(channels):
            row = c * hidden
            total = load(up, row + hidden - lanes) * load(room, at + hidden)
            for j in range(whole):
                total += load(up, row + j * lanes) * load(room,
                                                          at + j * lanes)
            room[to + c] = 1.0 / (1.0 + ti.exp(-added(total) - up_bias[c]))
        return to

    @ti.func
    def excite(task, means: ti.template(), down: ti.template(),
               down_bias: ti.template(), up: ti.template(),
               up_bias: ti.template(), room: ti.template(),
               pixels: ti.template(), channels, hidden, places, parts):
        """Multiplies one of an image's ``parts``, in place.

        ``pixels`` are ``(images, places, vectors)``; ``room`` has
        ``2 * hidden + channels`` numbers a task.
        """
        image, vectors = task // parts, channels // lanes
        frm = task % parts * places // parts
        to = (task % parts + 1) * places // parts
        at = gates(means, image * channels, channels, hidden, down,
                   down_bias, up, up_bias, room,
                   task * (2 * hidden + channels))
        for place in range(image * places + frm, image * places + to):
            row = place * vectors
            for v in range(vectors):
                pixel = (row + v) & INDEX
                pixels[pixel] = pixels[pixel] * load(room, at + v * lanes)

    return excite
