"""Draws one image of the shapes data set together with its masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

SHAPE_CLASSES = ('circle', 'square', 'triangle', 'ring')

# Diameter of the circle around a shape, in pixels. The upper end shrinks with
# small images so that a shape always fits into the picture.
MIN_DIAMETER = 28.0
MAX_DIAMETER = 84.0
MAX_SHARE_OF_SIDE = 0.7

# Every shape keeps at least this share of its full extent in sight; a new
# shape that would leave less of itself or of an earlier one is not placed.
MIN_VISIBLE = 0.75

# Shapes are turned by at most this many degrees.
MAX_TURN = 15.0

_SUPERSAMPLING = 4
# cv2.fillPoly takes fixed-point coordinates with this many fractional bits.
_FRACTION_BITS = 4


@dataclass(frozen=True)
class Scene:
    """One drawn image.

    Attributes:
        image: uint8 array (height, width, 3) in BGR order.
        owner: uint8 array (height, width): 0 where the background shows,
            ``k`` where the shape ``labels[k - 1]`` shows. A pixel belongs
            to a shape when at least half of it is covered.
        labels: index into ``SHAPE_CLASSES`` of each shape, from the lowest
            to the topmost.
    """

    image: np.ndarray
    owner: np.ndarray
    labels: tuple[int, ...]


def draw_scene(
    rng: np.random.Generator, width: int, height: int, first_label: int
) -> Scene:
    """Draw a textured background with one to sixteen shapes on it.

    Args:
        rng: the only source of randomness.
        width: of the image in pixels, at least 64.
        height: of the image in pixels, at least 64.
        first_label: class of the lowest shape, which always lies inside the
            image; the others are drawn at random.

    Returns:
        The image with the visible part of every shape.
    """
    canvas = _background(rng, width, height)
    owner = np.zeros((height, width), np.uint8)
    labels: list[int] = []
    # Pixels of each shape: in all, with those outside the image, and in sight.
    full = np.zeros(0, int)
    seen = np.zeros(0, int)
    for attempt in range(int(rng.integers(8, 17))):
        label = first_label
        if attempt > 0:
            label = int(rng.integers(len(SHAPE_CLASSES)))
        coverage, x0, y0 = _shape(rng, width, height, label, attempt > 0)
        visible, rows, columns = _clip(coverage, x0, y0, width, height)
        inside = visible >= 0.5
        region = owner[rows, columns]
        hidden = np.bincount(region[inside], minlength=len(labels) + 1)[1:]
        seen_then = np.append(seen - hidden, inside.sum())
        full_then = np.append(full, (coverage >= 0.5).sum())
        if (seen_then < MIN_VISIBLE * full_then).any():
            continue
        full, seen = full_then, seen_then
        region[inside] = len(labels) + 1
        _paint(rng, canvas[rows, columns], visible, inside)
        labels.append(label)
    return Scene(_camera(rng, canvas), owner, tuple(labels))


def _smooth_noise(
    rng: np.random.Generator, width: int, height: int, cell: float
) -> np.ndarray:
    """Values around 0 to 1, float32 (height, width), changing over `cell`."""
    grid = rng.random(
        (math.ceil(height / cell) + 1, math.ceil(width / cell) + 1),
        dtype=np.float32,
    )
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _ramp(width: int, height: int, angle: float) -> np.ndarray:
    """Signed distance in pixels from the centre along a direction."""
    x = np.arange(width, dtype=np.float32) - width / 2
    y = np.arange(height, dtype=np.float32) - height / 2
    ramp = math.cos(angle) * x[None, :] + math.sin(angle) * y[:, None]
    return ramp.astype(np.float32)


def _background(
    rng: np.random.Generator, width: int, height: int
) -> np.ndarray:
    """A float32 (height, width, 3) texture between two random colours."""
    kind = int(rng.integers(3))
    angle = rng.uniform(0, math.pi)
    if kind == 0:
        field = _smooth_noise(rng, width, height, rng.uniform(30, 90))
    elif kind == 1:
        field = _ramp(width, height, angle) / math.hypot(width, height) + 0.5
    else:
        period = rng.uniform(14, 70)
        waves = np.sin(_ramp(width, height, angle) * (2 * math.pi / period))
        sharpness = float(rng.uniform(0.8, 3))
        field = 0.5 + 0.5 * np.tanh(sharpness * waves)
    field += 0.35 * _smooth_noise(rng, width, height, 45.0)
    # Greyish, and the second colour stays near the first: a background has
    # less contrast and less colour than the shapes on it.
    first = rng.uniform(60, 170) + rng.uniform(-14, 14, 3)
    second = first + rng.uniform(-35, 35) + rng.uniform(-12, 12, 3)
    grain = _smooth_noise(rng, width, height, rng.uniform(2.5, 6)) - 0.5
    grain *= np.float32(rng.uniform(4, 22))
    canvas = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        step = float(second[channel] - first[channel])
        canvas[..., channel] = float(first[channel]) + step * field + grain
    return canvas


def _contours(rng: np.random.Generator, label: int) -> list[np.ndarray]:
    """Outlines (points, 2) of a shape inside the circle of radius 1."""
    name = SHAPE_CLASSES[label]
    # Upright: a square stands on its side, the others on their base.
    upright = math.pi / 4 if name == 'square' else -math.pi / 2
    turn = upright + math.radians(rng.uniform(-MAX_TURN, MAX_TURN))
    corners = {'square': 4, 'triangle': 3}.get(name, 72)
    angles = turn + np.arange(corners) * (2 * math.pi / corners)
    outline = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if name == 'ring':
        return [outline, outline * rng.uniform(0.5, 0.68)]
    return [outline]


def _shape(
    rng: np.random.Generator,
    width: int,
    height: int,
    label: int,
    may_be_cut: bool,
) -> tuple[np.ndarray, int, int]:
    """Place a shape; return its full coverage and where that begins.

    Returns:
        float32 (side, side) share of each pixel covered, 0 to 1, and the
        column and row of its upper left pixel, possibly outside the image.
    """
    largest = min(MAX_DIAMETER, MAX_SHARE_OF_SIDE * min(width, height))
    diameter = math.exp(
        rng.uniform(math.log(MIN_DIAMETER), math.log(largest))
    )
    margin = 0.2 * diameter if may_be_cut else 0.5 * diameter + 1
    centre = rng.uniform((margin, margin), (width - margin, height - margin))
    side = math.ceil(diameter) + 3
    corner = np.floor(centre - side / 2).astype(int)

    # cv2 counts from pixel centres, hence the half pixel.
    scale = _SUPERSAMPLING * (1 << _FRACTION_BITS)
    half_pixel = (1 << _FRACTION_BITS) / 2
    contours = [
        np.rint((outline * (diameter / 2) + centre - corner) * scale
                - half_pixel).astype(np.int32)
        for outline in _contours(rng, label)
    ]
    fine = np.zeros((side * _SUPERSAMPLING,) * 2, np.uint8)
    # Several outlines are filled by the even-odd rule: a ring gets its hole.
    cv2.fillPoly(fine, contours, 255, shift=_FRACTION_BITS)
    coverage = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    coverage = coverage.astype(np.float32) / 255
    return coverage, int(corner[0]), int(corner[1])


def _clip(
    coverage: np.ndarray, x0: int, y0: int, width: int, height: int
) -> tuple[np.ndarray, slice, slice]:
    """The part of `coverage` in the image, and its rows and columns."""
    side = coverage.shape[0]
    left, right = max(x0, 0), min(x0 + side, width)
    top, bottom = max(y0, 0), min(y0 + side, height)
    part = coverage[top - y0:bottom - y0, left - x0:right - x0]
    return part, slice(top, bottom), slice(left, right)


def _paint(
    rng: np.random.Generator,
    region: np.ndarray,
    coverage: np.ndarray,
    inside: np.ndarray,
) -> None:
    """Blend a shaded colour into `region` (rows, columns, 3), in place."""
    below = region[inside].mean(axis=0)
    # Contrast varies on purpose; of a few colours, the one that comes
    # closest to the contrast drawn is taken.
    candidates = rng.uniform(10, 245, (24, 3))
    contrast = np.linalg.norm(candidates - below, axis=1)
    wanted = rng.uniform(110, 200)
    colour = candidates[np.argmin(np.abs(contrast - wanted))]
    rows, columns = coverage.shape
    ramp = _ramp(columns, rows, rng.uniform(0, 2 * math.pi))
    light = 1 + rng.uniform(0, 0.3) * ramp / max(rows, columns)
    texture = _smooth_noise(rng, columns, rows, rng.uniform(4, 12)) - 0.5
    paint = colour * light[..., None]
    paint = paint + rng.uniform(0, 30) * texture[..., None]
    region += coverage[..., None] * (paint.astype(np.float32) - region)


def _camera(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Slight blur and sensor noise, then uint8."""
    image = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.9))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += np.float32(rng.uniform(2, 7)) * noise
    np.rint(image, out=image)
    return np.clip(image, 0, 255, out=image).astype(np.uint8)
