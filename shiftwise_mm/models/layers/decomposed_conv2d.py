"""The decomposed large kernel of SLaK, whole or made of small kernels."""
from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from shiftwise_mm.ops import ShiftSpec, shiftwise_conv
from shiftwise_mm.ops.forms import FORM_NAMES
from shiftwise_mm.ops.masks import masked_weight
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.ops.strip_pair import StripPair
from shiftwise_mm.ops.strips import strip_conv, strip_weights

from .fold import fold_strips
from .kernel_masks import KernelMasks
from .norm_cfg import build_norm

__all__ = ['DecomposedConv2d', 'kernel_to_taps', 'taps_to_kernel']

FORMS = ('large', 'shiftwise', 'shared_gated')


def kernel_to_taps(kernel: Tensor, direction: str,
                   small_kernel: int) -> Tensor:
    """Cuts a long kernel into small ones, the last one padded with zeros.

    Args:
        kernel (Tensor): ``(C, 1, N, M)`` for ``'h'``, ``(C, 1, M, N)`` for
            ``'v'``.
        direction (str): ``'h'`` or ``'v'``.
        small_kernel (int): ``N``.

    Returns:
        Tensor: ``(C*k, 1, N, N)``; ``c*k + i`` is tile ``i`` of channel
        ``c``, which :meth:`~shiftwise_mm.ops.ShiftSpec.tiled` puts in place.
    """
    n = small_kernel
    if direction == 'h':
        kernel = kernel.transpose(2, 3)
    kernel = F.pad(kernel, (0, 0, 0, -kernel.shape[2] % n))
    taps = kernel.reshape(-1, 1, n, n)
    return (taps.transpose(2, 3) if direction == 'h' else taps).contiguous()


def taps_to_kernel(taps: Tensor, direction: str, large_kernel: int) -> Tensor:
    """Joins the tiles of :func:`kernel_to_taps` again.

    Args:
        taps (Tensor): ``(C*k, 1, N, N)``.
        direction (str): ``'h'`` or ``'v'``.
        large_kernel (int): ``M``.

    Returns:
        Tensor: ``(C, 1, N, M)`` for ``'h'``, ``(C, 1, M, N)`` for ``'v'``.

    Raises:
        ValueError: If the tiles hold something beyond ``M``, which a kernel
            of that length could not keep.
    """
    n = taps.shape[-1]
    if direction == 'h':
        taps = taps.transpose(2, 3)
    length = -(-large_kernel // n) * n
    kernel = taps.reshape(-1, 1, length, n)
    if kernel[:, :, large_kernel:].any():
        raise ValueError(
            f'the small kernels reach to {length}, beyond large_kernel='
            f'{large_kernel}, with weights that are not zero (trained in '
            'shift-wise form): a large kernel of that size cannot hold them')
    kernel = kernel[:, :, :large_kernel]
    return (kernel.transpose(2, 3) if direction == 'h' else kernel
            ).contiguous()


class DecomposedConv2d(KernelMasks, BaseModule):
    r"""Depthwise ``M x M``-class kernel as an ``M x N`` and an ``N x M`` one.

    .. math::
        y = \mathrm{BN}_V(K_{M \times N} * x) +
            \mathrm{BN}_H(K_{N \times M} * x) +
            \mathrm{BN}_I(K_{N \times N} * x)

    Source: SLaK (arXiv 2207.03620). Its forms:

    * ``'large'``: as published.
    * ``'shiftwise'``: the same function, each long kernel cut into
      ``k = ceil(M / N)`` small ones whose outputs are shifted and added
      (seed paper, section 4.1).
    * ``'shared_gated'``: both directions share one set of small kernels, each
      tap scaled by the sigmoid of a learned gate a direction (published
      ``SLaK_pw_wt.py``).

    In sparse training (``CoarseSparsityHook``) each direction has a mask of
    its own, ``mask_h`` and ``mask_v``, shared kernels one, ``mask``; see
    :class:`~shiftwise_mm.models.layers.kernel_masks.KernelMasks`. The small
    kernel ``conv_i`` is never masked, as published.

    Args:
        channels (int): ``C``.
        kernel_size (int): Large kernel ``M``.
        small_kernel (int): ``N``, odd, at most ``M``. Defaults to 5.
        norm_cfg (dict): Norm layer behind each. Defaults to
            ``dict(type='BN')``.
        form (str): ``'large'``, ``'shiftwise'`` or ``'shared_gated'``.
        shift_form (str): How small kernels are computed, see
            :func:`shiftwise_mm.ops.shiftwise_conv`. Defaults to ``'auto'``.
        deploy (bool): Build the deployed layer: two strip convolutions that
            hold norms and the small kernel. Defaults to False.

    Shape:
        ``(B, C, H, W)`` in, the same out.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If an argument is not allowed; the message names it.
    """

    def __init__(self, channels: int, kernel_size: int, *,
                 small_kernel: int = 5,
                 norm_cfg: dict = dict(type='BN'),
                 form: str = 'large',
                 shift_form: str = 'auto',
                 deploy: bool = False) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(f'form must be one of {FORMS}, got {form!r}')
        if shift_form not in FORM_NAMES:
            raise ValueError(f'shift_form must be one of {FORM_NAMES}, got '
                             f'{shift_form!r}')
        self.spec = ShiftSpec.tiled(
            channels=channels, large_kernel=check_int('kernel_size',
                                                      kernel_size, 1),
            small_kernel=small_kernel)
        self.form = form
        self.shift_form = shift_form
        self.deploy = deploy
        self._build(norm_cfg)

    def _depthwise(self, height: int, width: int, num: int = 1,
                   bias: bool = False) -> nn.Conv2d:
        c = self.spec.channels
        return nn.Conv2d(c, c * num, (height, width), groups=c, bias=bias)

    def _build(self, norm_cfg: dict | None) -> None:
        n, m, k = (self.spec.small_kernel, self.spec.large_kernel,
                   self.spec.num_taps)
        if self.deploy:
            length = m if self.form == 'large' else self.spec.strip_length
            self.strip_h = self._depthwise(n, length, bias=True)
            self.strip_v = self._depthwise(length, n)
            self._strips = StripPair(self.spec)
            return
        if self.form == 'large':
            self.conv_h, self.conv_v = (self._depthwise(n, m),
                                        self._depthwise(m, n))
        elif self.form == 'shiftwise':
            self.conv_h, self.conv_v = (self._depthwise(n, n, k),
                                        self._depthwise(n, n, k))
        else:
            self.conv = self._depthwise(n, n, k)
            # Modules, as published, so that each has a `weight`.
            self.gate_h, self.gate_v = (
                _Gate(self.spec.channels * k) for _ in 'hv')
        self.conv_i = self._depthwise(n, n)
        for name in 'hvi':
            self.add_module(f'norm_{name}',
                            build_norm(norm_cfg, self.spec.channels))

    def masked_kernels(self) -> dict[str, tuple[nn.Parameter, ...]]:
        """A mask a direction, or one of shared kernels; see the base."""
        if self.deploy:
            return {}
        if self.form == 'shared_gated':
            return {'mask': (self.conv.weight, )}
        return {'mask_h': (self.conv_h.weight, ),
                'mask_v': (self.conv_v.weight, )}

    def _weight(self, name: str) -> Tensor:
        """Weight of a direction in the form that is built."""
        if self.form == 'shared_gated':
            return getattr(self, f'gate_{name}')(self.conv.weight)
        return getattr(self, f'conv_{name}').weight

    def _mask_name(self, name: str) -> str:
        """Name of the mask of a direction."""
        return 'mask' if self.form == 'shared_gated' else f'mask_{name}'

    def _direction(self, x: Tensor, name: str) -> Tensor:
        if self.form == 'large':
            return strip_conv(x, self._weight(name), self.spec, name)
        mask = self.kept_kernels(self._mask_name(name))
        out, = shiftwise_conv(x, self._weight(name), self.spec,
                              outputs=(name, ), form=self.shift_form,
                              mask=mask)
        return out

    def forward(self, x: Tensor) -> Tensor:
        if self.deploy:
            return self._strips(x, self.strip_h.weight, self.strip_v.weight,
                                self.strip_h.bias)
        if torch.compiler.is_exporting():
            # Sums of norms in another layout would ask for strides, and the
            # size would not be free.
            x = x.contiguous()
        small = strip_conv(x, self.conv_i.weight, self.spec, 'i')
        return (self.norm_v(self._direction(x, 'v')) +
                self.norm_h(self._direction(x, 'h')) + self.norm_i(small))

    @torch.no_grad()
    def switch_form(self, form: str) -> None:
        """Changes between ``'large'`` and ``'shiftwise'``.

        Masks, which are of one form, are removed; weights that are zero stay
        so.

        Raises:
            ValueError: If the form is another one, the layer is gated or
                deployed, or a large kernel could not hold the small ones.
        """
        if form not in FORMS[:2] or self.form not in FORMS[:2] or self.deploy:
            raise ValueError(
                f'form must change between {FORMS[0]!r} and {FORMS[1]!r} '
                f'before switch_to_deploy, got {form!r} for a layer of form '
                f'{self.form!r}, deploy={self.deploy}')
        if form == self.form:
            return
        self.remove_masks()
        for name in 'hv':
            weight = self.as_form(self._weight(name), name, form)
            conv = self._depthwise(*weight.shape[2:],
                                   len(weight) // self.spec.channels)
            conv.to(weight.device, weight.dtype).weight.copy_(weight)
            conv.weight.requires_grad_(self._weight(name).requires_grad)
            conv.train(self.training)
            setattr(self, f'conv_{name}', conv)
        self.form = form

    def as_form(self, weight: Tensor, direction: str, form: str) -> Tensor:
        """A weight of ``'large'`` or ``'shiftwise'`` as one of ``form``."""
        is_large = len(weight) == self.spec.channels and max(
            weight.shape[2:]) == self.spec.large_kernel
        if form == 'large' and not is_large:
            return taps_to_kernel(weight, direction, self.spec.large_kernel)
        if form == 'shiftwise' and is_large:
            return kernel_to_taps(weight, direction, self.spec.small_kernel)
        return weight

    def adapt_state_dict(self, state_dict: dict, prefix: str) -> None:
        """Brings weights of the other form into this one, in place.

        Weights whose shapes fit neither form stay as they are, for the check
        of shapes to name. Masks of the other form are taken out: the weights
        that they mask are zero.
        """
        c, n, k, m = (self.spec.channels, self.spec.small_kernel,
                      self.spec.num_taps, self.spec.large_kernel)
        if self.deploy or self.form not in FORMS[:2]:
            return
        for name, long in (('h', (c, 1, n, m)), ('v', (c, 1, m, n))):
            key = f'{prefix}conv_{name}.weight'
            weight = state_dict.get(key)
            if weight is not None and tuple(weight.shape) in (
                    long, (c * k, 1, n, n)):
                state_dict[key] = self.as_form(weight, name, self.form)
                if state_dict[key].shape != weight.shape:
                    state_dict.pop(f'{prefix}mask_{name}', None)

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Folds norms and the small kernel into two strip convolutions.

        See :func:`~shiftwise_mm.models.layers.fold.fold_strips`. The function
        in eval mode stays the same up to rounding. A second call does
        nothing.

        Raises:
            TypeError: If a norm has no running statistics to fold.
        """
        if self.deploy:
            return
        strips = {name: self._weight(name) for name in 'hv'}
        if self.form != 'large':
            strips = {
                name: strip_weights(masked_weight(
                    weight, self.union_mask(self._mask_name(name))),
                    self.spec, name)
                for name, weight in strips.items()
            }
        strips['i'] = small = self.conv_i.weight
        strip_h, strip_v, bias = fold_strips(
            strips, {name: getattr(self, f'norm_{name}') for name in 'hvi'},
            self.spec, identity=False)
        self.remove_masks()
        for name in list(self._modules):
            delattr(self, name)
        self.deploy = True
        self._build(None)
        self.to(small.device, small.dtype)
        self.strip_h.weight.copy_(strip_h)
        self.strip_h.bias.copy_(bias)
        self.strip_v.weight.copy_(strip_v)

    def extra_repr(self) -> str:
        return (f'{self.spec.channels}, kernel_size='
                f'{self.spec.large_kernel}, small_kernel='
                f'{self.spec.small_kernel}, form={self.form!r}, '
                f'deploy={self.deploy}')


class _Gate(nn.Module):
    """Scales each tap by the sigmoid of a learned weight."""

    def __init__(self, num_taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, num_taps, 1, 1))

    def forward(self, taps: Tensor) -> Tensor:
        return taps * torch.sigmoid(self.weight).transpose(0, 1)
