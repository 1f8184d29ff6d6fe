"""Effective receptive fields of networks whose fields are known."""
import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from helpers import assert_near

from shiftwise_mm.analysis.erf import (
    THRESHOLDS,
    area_squares,
    contributions,
    effective_field,
    log_scores,
)


def convolution(kernel, value=.01, channels=3, **options):
    layer = nn.Conv2d(channels, 1, kernel, padding=kernel // 2, bias=False,
                      **options)
    nn.init.constant_(layer.weight, value)
    return layer


def images(count=2, size=64, channels=3):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(1, channels, size, size, generator=generator)
            for _ in range(count)]


@pytest.mark.parametrize('kernel', [7, 21, 51])
def test_squares_of_one_constant_convolution(kernel):
    """k x k pixels contribute alike: a square of side s holds s^2 / k^2."""
    found = effective_field(convolution(kernel), images())
    scores = np.zeros((64, 64))
    low = 32 - kernel // 2
    scores[low:low + kernel, low:low + kernel] = 3 * .01
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5)
    assert (found.images, found.left_out, found.map_size) == (2, 0, (64, 64))
    for threshold, square in area_squares(found.scores).items():
        side = next(s for s in range(3, 64, 2)
                    if s**2 / kernel**2 > threshold)
        assert square.side == side, threshold
        assert square.area_ratio == pytest.approx(side**2 / 64**2)


def test_two_convolutions_contribute_as_their_product():
    network = nn.Sequential(convolution(5), convolution(3, channels=1))
    found = effective_field(network, images(1, 33))
    product = F.conv2d(F.pad(torch.full((1, 1, 5, 5), .01), [2] * 4),
                       torch.full((1, 1, 3, 3), .01))[0, 0]
    assert_near(torch.from_numpy(found.scores[13:20, 13:20]).float(),
                3 * product)
    assert found.scores.sum() == pytest.approx(float(3 * product.sum()))


def test_only_what_is_positive_counts():
    """A negative channel takes nothing away from a positive one."""
    layer = convolution(5)
    with torch.no_grad():
        layer.weight[:, 1] = -.002
    scores, _ = contributions(layer, images(1)[0])
    assert scores.max().item() == pytest.approx(2 * .01)
    with pytest.raises(ValueError, match='no pixel contributes'):
        effective_field(convolution(5, -.01), images())


def as_published(network, image):
    """The published script, line by line in its meaning."""
    image = image.clone().requires_grad_()
    y = network(image)[-1]
    _, _, height, width = y.shape
    torch.relu(y[:, :, height // 2, width // 2]).sum().backward()
    return torch.relu(image.grad).sum((0, 1)).numpy()


def published_squares(scores):
    data = np.log10(scores + 1)
    data = data / data.max()
    height, width = data.shape
    found = []
    for threshold in (.2, .3, .5, .99):
        for i in range(1, height // 2):
            part = data[height // 2 - i:height // 2 + 1 + i,
                        width // 2 - i:width // 2 + 1 + i]
            if part.sum() / data.sum() > threshold:
                found.append((2 * i + 1, (2 * i + 1)**2 / height / width))
                break
        else:
            found.append((height, 1.))
    return found


def test_a_backbone_as_the_published_script_measures_it():
    from published import MINI

    from shiftwise_mm.models import ShiftWiseNet
    torch.manual_seed(0)
    network = ShiftWiseNet(MINI, layer_scale_init_value=1.,
                           kernel_sizes=(13, 13, 7, 5), norm_out=False,
                           shift_form='strip')  # nothing to compile
    inputs = [image - .5 for image in images(2, 96)]
    found = effective_field(network, inputs)
    assert network.training and all(
        p.requires_grad for p in network.parameters())
    again = effective_field(network, inputs)
    assert (found.scores == again.scores).all()  # bit for bit
    network.eval()
    expected = np.mean([as_published(network, x) for x in inputs], 0)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-4,
                               atol=1e-6 * expected.max())
    squares = area_squares(found.scores)
    assert tuple(squares) == THRESHOLDS
    assert [(s.side, pytest.approx(s.area_ratio))
            for s in squares.values()] == published_squares(expected)
    assert log_scores(found.scores).max() == 1
    # Of an earlier stage less contributes.
    early = effective_field(network, inputs, stage=0)
    assert early.map_size == (24, 24) and found.map_size == (3, 3)
    assert (early.scores > 0).sum() < (found.scores > 0).sum()


@pytest.mark.parametrize('size', [(31, 31), (30, 44), (45, 20)])
def test_squares_are_found_as_in_the_published_script(size):
    rng = np.random.default_rng(1)
    scores = rng.random(size)**8 * 10
    rows, columns = (np.arange(n) - n // 2 for n in size)
    scores *= np.exp(-(rows[:, None]**2 + columns**2) / 60)
    found = area_squares(scores, (.2, .5))
    inside = [s for s in published_squares(scores)[0:3:2]]
    assert [s.side for s in found.values()] == [side for side, _ in inside]


def test_images_without_a_finite_gradient_are_left_out():
    network = nn.Sequential(convolution(3), nn.Identity())
    good = images(1)[0]
    bad = torch.full_like(good, float('nan'))
    network[1].forward = lambda x: x * x.sum().nan_to_num(float('inf'))
    found = effective_field(network, [good, bad])
    assert (found.images, found.left_out) == (1, 1)
    with pytest.raises(ValueError, match='of all 1 images are not finite'):
        effective_field(network, [bad])
    with pytest.raises(ValueError, match='no image'):
        effective_field(network, [])


def test_a_share_that_no_square_holds_is_the_whole():
    scores = np.zeros((20, 20))
    scores[0, 0] = 1.
    assert area_squares(scores, (.5, )) == {.5: area_squares(
        scores, (.99, ))[.99]}
    assert area_squares(scores, (.5, ))[.5].area_ratio == 1


@pytest.mark.parametrize('call, words', [
    (lambda: contributions(convolution(3), images(1)[0], 1),
     r'stage must be in -1\.\.0'),
    (lambda: contributions(nn.Flatten(), images(1)[0]), 'not a feature map'),
    (lambda: area_squares(np.ones((5, 5)), (20, )), 'thresholds'),
])
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
