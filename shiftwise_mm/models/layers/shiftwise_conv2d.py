"""The shift-wise convolution as a layer."""
from __future__ import annotations

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from shiftwise_mm.ops import ShiftSpec, shiftwise_conv
from shiftwise_mm.ops.forms import FORM_NAMES
from shiftwise_mm.ops.masks import density_of, masked_weight
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.ops.strip_pair import PreparedStrips, StripPair
from shiftwise_mm.ops.strips import strip_weights
from shiftwise_mm.registry import MODELS

from .fold import fold_strips
from .ghost import permute_channels, split_channels
from .kernel_masks import KernelMasks
from .norm import SEModule
from .norm_cfg import build_norm
from .normed_sum import add_normed

__all__ = ['ShiftWiseConv2d']


def _single(name: str, value, allowed: tuple[int, ...]) -> int:
    """One integer from an int or a square pair, which must be allowed."""
    values = tuple(value) if isinstance(value, (tuple, list)) else (value, )
    if len(set(values)) != 1 or values[0] not in allowed:
        raise ValueError(f'{name} must be {" or ".join(map(str, allowed))} '
                         f'for ShiftWiseConv2d, got {value!r}')
    return values[0]


@MODELS.register_module()
class ShiftWiseConv2d(KernelMasks, BaseModule):
    r"""Depthwise convolution with a large kernel made of small ones.

    Of ``C`` channels ``n_rep`` take part and the others, the ghosts, pass
    unchanged (:func:`split_channels`). ``num_paths`` depthwise convolutions
    with ``k = ceil(M / N)`` kernels of ``N x N`` a channel are summed, their
    outputs shifted to the places of an ``M x N`` and an ``N x M`` kernel and
    added:

    .. math::
        y = \mathrm{BN}_H(out_H) + \mathrm{BN}_V(out_V) +
            \mathrm{BN}_I(out_I) + x_{rep}

    with the outputs of :func:`shiftwise_mm.ops.shiftwise_conv`. The result is
    ``concat([y, x_ghost])``: **with ghosts the channel order changes**, as in
    the published networks (ShiftwiseConv, arXiv 2401.12736).

    It has the public attributes of ``nn.Conv2d``, so that it can stand where
    a depthwise convolution stood: the size is kept, the stride is 1.

    In sparse training (``CoarseSparsityHook``) a buffer ``mask``,
    ``(num_paths, n_rep*k)``, tells which small kernels are kept; those that
    no path keeps are left out of the computation. See
    :class:`~shiftwise_mm.models.layers.kernel_masks.KernelMasks`.

    Args:
        in_channels (int): ``C``.
        out_channels (int, optional): Must be ``in_channels`` (the default).
        kernel_size (int): The large kernel ``M``. Defaults to 51.
        stride (int): Must be 1.
        padding (int, optional): Must be ``kernel_size // 2`` (the default):
            the size is kept.
        dilation (int): Must be 1.
        groups (int, optional): Must be ``in_channels`` (the default).
        bias (bool): Whether to add a learned bias. Defaults to True.
        small_kernel (int): ``N``, odd, at most ``kernel_size``. Defaults
            to 3.
        num_paths (int): Parallel small convolutions ``P``. Defaults to 1.
        num_reps (int): Repetitions ``R`` with shift tables of their own.
            Defaults to 1.
        ghost_ratio (float): Share of the channels that pass unchanged, in
            [0, 1). Defaults to 0.
        style (str): Published code whose count of ghosts to follow,
            ``'unirep'`` or ``'slak'``. Defaults to ``'unirep'``.
        norm_cfg (dict, optional): Norm layer behind each output; None for
            none. Defaults to ``dict(type='BN')``.
        form (str): How it is computed, a form of
            :func:`shiftwise_mm.ops.shiftwise_conv`. Defaults to ``'auto'``.
        deploy (bool): Build the deployed layer: two strip convolutions of all
            channels that hold paths, norms, small kernel, identity, ghosts
            and bias. Defaults to False.

    Shape:
        ``(B, C, H, W)`` in, the same out; any floating dtype.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If an argument is not allowed; the message names it.
    """

    transposed = False
    output_padding = (0, 0)
    padding_mode = 'zeros'

    def __init__(self,
                 in_channels: int,
                 out_channels: int | None = None,
                 kernel_size: int = 51,
                 stride: int = 1,
                 padding: int | None = None,
                 dilation: int = 1,
                 groups: int | None = None,
                 bias: bool = True,
                 *,
                 small_kernel: int = 3,
                 num_paths: int = 1,
                 num_reps: int = 1,
                 ghost_ratio: float = 0.,
                 style: str = 'unirep',
                 norm_cfg: dict | None = dict(type='BN'),
                 form: str = 'auto',
                 deploy: bool = False,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.in_channels = check_int('in_channels', in_channels, 1)
        for name, value in (('out_channels', out_channels), ('groups',
                                                             groups)):
            if value not in (None, in_channels):
                raise ValueError(
                    f'{name} must be in_channels={in_channels} for '
                    f'ShiftWiseConv2d (it is depthwise), got {value!r}')
        self.out_channels = self.groups = self.in_channels
        if isinstance(kernel_size, (tuple, list)):
            if len(set(kernel_size)) != 1:
                raise ValueError('kernel_size must be one number or a square '
                                 f'pair, got {kernel_size!r}')
            kernel_size = kernel_size[0]
        kernel_size = check_int('kernel_size', kernel_size, 1)
        self.kernel_size = (kernel_size, kernel_size)
        self.stride = (_single('stride', stride, (1, )), ) * 2
        self.dilation = (_single('dilation', dilation, (1, )), ) * 2
        same = kernel_size // 2
        if padding not in (None, 'same'):
            _single('padding', padding, (same, ))
        self.padding = (same, same)
        if form not in FORM_NAMES:
            raise ValueError(f'form must be one of {FORM_NAMES}, got {form!r}')
        self.small_kernel = small_kernel
        self.num_paths = check_int('num_paths', num_paths, 1)
        self.num_reps = num_reps
        self.ghost_ratio = ghost_ratio
        self.style = style
        self.norm_cfg = norm_cfg
        self.form = form
        self.deploy = deploy
        self.keeps_order = False

        rep, ghost = split_channels(self.in_channels, ghost_ratio, style)
        self.spec = ShiftSpec.from_seed(
            channels=len(rep), large_kernel=kernel_size,
            small_kernel=small_kernel, num_reps=num_reps)
        # The function depends on these tables, so the checkpoint holds them.
        # NCCL and gloo send no int16.
        self.register_buffer('rep_index', rep)
        self.register_buffer('ghost_index', ghost)
        for name in 'hv':
            self.register_buffer(f'shift_{name}',
                                 self.spec.tap_offsets(name).int())
        self.register_buffer('shift_i', self.spec.identity_tap.int())
        self._build(bias)

    TABLES = ('rep_index', 'ghost_index', 'shift_h', 'shift_v', 'shift_i')

    def _build(self, bias: bool) -> None:
        c, n, length = (self.spec.channels, self.spec.small_kernel,
                        self.spec.strip_length)
        self.register_parameter('bias', None)
        if self.deploy:
            channels = self.in_channels
            self.strip_h = nn.Conv2d(channels, channels, (n, length),
                                     groups=channels)
            self.strip_v = nn.Conv2d(channels, channels, (length, n),
                                     groups=channels, bias=False)
            self._strips = StripPair(self.spec)
            return
        self.convs = nn.ModuleList(
            nn.Conv2d(c, c * self.spec.num_taps, n, padding=n - 1, groups=c,
                      bias=False) for _ in range(self.num_paths))
        for name in self.spec.outputs:
            norm = (nn.Identity() if self.norm_cfg is None else
                    build_norm(self.norm_cfg, c))
            self.add_module(f'norm_{name}', norm)
        if bias:
            self.bias = nn.Parameter(torch.zeros(self.out_channels))

    def masked_kernels(self) -> dict[str, tuple[nn.Parameter, ...]]:
        """The one mask, over the small kernels of all paths; see the base."""
        if self.deploy:
            return {}
        return {'mask': tuple(conv.weight for conv in self.convs)}

    def merged_weight(self) -> Tensor:
        """The one small convolution that the paths add up to.

        Nothing non-linear stands between the paths, so their sum is exact,
        in training too: ``(n_rep*k, 1, N, N)``.
        """
        return sum(conv.weight for conv in self.convs)

    def operator(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs ``h, v, i`` before their norms; not when deployed.

        Args:
            x (Tensor): The channels that take part, ``(B, n_rep, H, W)``.

        Returns:
            tuple[Tensor]: Three of the shape of ``x``.
        """
        return shiftwise_conv(x, self.merged_weight(), self.spec,
                              form=self.form, mask=self.kept_kernels())

    def _constant(self) -> Tensor | None:
        """What inference adds to the input if no tap is left, else None."""
        if self.training or torch.is_grad_enabled() or \
                density_of(self.kept_kernels()) != 0:
            return None
        zeros = self.convs[0].weight.new_zeros(1, self.spec.channels, 2, 2)
        return (self.norm_h(zeros) + self.norm_v(zeros) +
                self.norm_i(zeros))[..., :1, :1]

    def _norms(self) -> list[nn.Module]:
        return [getattr(self, f'norm_{name}') for name in self.spec.outputs]

    def _order(self) -> Tensor | None:
        """Input channel of each output channel; None without ghosts."""
        if not self.ghost_index.numel():
            return None
        return torch.cat([self.rep_index, self.ghost_index])

    def forward(self, x: Tensor, se: SEModule | None = None) -> Tensor:
        """The layer, and squeeze and excitation behind it.

        Args:
            x (Tensor): ``(B, C, H, W)``.
            se (SEModule, optional): What follows: in the same kernel, where a
                deployed layer has one. Defaults to None.

        Returns:
            Tensor: ``(B, C, H, W)``.
        """
        if self.deploy:
            strip_h = self.strip_h
            weights = strip_h.weight, self.strip_v.weight, strip_h.bias
            order = None if self.keeps_order else self._order()
            if order is None:
                return self._strips(x, *weights,
                                    None if se is None else se.weights())
            out = permute_channels(self._strips(x, *weights), order)
        else:
            out = self._undeployed(x)
        return out if se is None else se(out)

    def prepared(self, x: Tensor) -> PreparedStrips | None:
        """What the next call with such an input launches, if that is all:
        the deployed layer with squeeze and excitation, as in the last one.
        """
        return self._strips.prepared(x) if self.deploy and (
            self.keeps_order or self._order() is None) else None

    def _undeployed(self, x: Tensor) -> Tensor:
        """The layer as it is trained."""
        order = self._order()
        rep, ghost = x, None
        if order is not None:
            rep, ghost = permute_channels(x, order).split(
                [self.rep_index.numel(), self.ghost_index.numel()], dim=1)
            if x.is_contiguous():  # once: the operator would, in each pass
                rep = rep.contiguous()
        constant = self._constant()
        if constant is None:
            out = add_normed(rep, self.operator(rep), self._norms())
        else:
            out = rep + constant.to(rep.dtype)
        if ghost is not None:
            out = torch.cat([out, ghost], dim=1)
        return out if self.bias is None else out + self.bias.view(-1, 1, 1)

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Folds paths, norms, small kernel and identity into two strips.

        A ghost becomes a strip whose only entry is the centre, so that no
        channel is gathered before. See
        :func:`~shiftwise_mm.models.layers.fold.fold_strips`; masked taps
        leave zeros in the strips, from which
        :class:`~shiftwise_mm.ops.strip_pair.StripPair` profits. The function
        in eval mode stays the same up to rounding. A second call does nothing.

        Raises:
            TypeError: If a norm has no running statistics to fold.
        """
        if self.deploy:
            return
        weight = masked_weight(self.merged_weight(), self.union_mask())
        strip_h, strip_v, offset = fold_strips(
            {name: strip_weights(weight, self.spec, name)
             for name in self.spec.outputs},
            {name: getattr(self, f'norm_{name}')
             for name in self.spec.outputs}, self.spec, identity=True)
        bias = self.bias
        self.remove_masks()
        for name in ('convs', *(f'norm_{n}' for n in self.spec.outputs)):
            delattr(self, name)
        self.deploy = True
        self._build(bias=False)
        self.to(weight.device, weight.dtype)
        n, first = self.spec.small_kernel, self.spec.large_kernel // 2
        for parameter, value in ((self.strip_h.weight, strip_h),
                                 (self.strip_v.weight, strip_v),
                                 (self.strip_h.bias, offset)):
            parameter.zero_()
            parameter[self.rep_index] = value.to(weight.dtype)
        self.strip_h.weight[self.ghost_index, 0, n // 2, first] = 1
        if bias is not None:
            self.absorb_affine(torch.ones_like(bias), bias)

    @torch.no_grad()
    def absorb_affine(self, scale: Tensor, offset: Tensor) -> None:
        """Makes the deployed layer compute ``scale * layer(x) + offset``.

        Args:
            scale, offset (Tensor): ``(C,)``, in the order of the outputs.

        Raises:
            ValueError: If the layer is not deployed.
        """
        if not self.deploy:
            raise ValueError('absorb_affine needs the deployed layer: call '
                             'switch_to_deploy first')
        weight = self.strip_h.weight
        scale, offset = scale.to(weight.device), offset.to(weight.device)
        order = self._order()
        if order is not None and not self.keeps_order:
            back = order.argsort()
            scale, offset = scale[back], offset[back]
        for strip in (self.strip_h, self.strip_v):
            strip.weight.copy_(strip.weight * scale.view(-1, 1, 1, 1))
        self.strip_h.bias.copy_(self.strip_h.bias * scale + offset)

    def keep_order(self) -> Tensor | None:
        """Lets the deployed layer leave its channels in the input's order.

        What reads them must be changed accordingly: channel ``order[i]`` of
        the output is what was channel ``i``.

        Returns:
            Tensor | None: ``order``, int64 ``(C,)``; None if nothing changes.

        Raises:
            ValueError: If the layer is not deployed.
        """
        if not self.deploy:
            raise ValueError('keep_order needs the deployed layer: call '
                             'switch_to_deploy first')
        if self.keeps_order:
            return None
        self.keeps_order = True
        return self._order()

    @property
    def order(self) -> Tensor | None:
        """Input channel of each output channel; None if they are the same.

        After :meth:`keep_order` as well: what readers were changed by.
        """
        order = self._order()
        if order is None or torch.equal(order, order.sort().values):
            return None
        return order

    @torch.no_grad()
    def put_in_order(self, order: Tensor) -> None:
        """Changes the deployed layer to one whose input and output channel
        ``i`` is what was ``order[i]``.

        Args:
            order (Tensor): A permutation, :attr:`order`, which puts the
                channels that take part before the ghosts.

        Raises:
            ValueError: If the layer does not keep the order of its channels
                (:meth:`keep_order`).
        """
        if not self.keeps_order:
            raise ValueError('put_in_order needs a layer that keeps the '
                             'order of its channels: call keep_order first')
        for tensor in (self.strip_h.weight, self.strip_v.weight,
                       self.strip_h.bias):
            tensor.copy_(tensor[order])
        place = order.argsort()
        for index in (self.rep_index, self.ghost_index):
            index.copy_(place[index].sort().values)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        # Wrong tables would load without a word and compute another function.
        for name in self.TABLES:
            given = state_dict.get(prefix + name)
            if given is not None and not torch.equal(
                    given.cpu().long(), getattr(self, name).cpu().long()):
                raise ValueError(
                    f'{prefix}{name} of the checkpoint is not the table of '
                    f'this model: in_channels={self.in_channels}, kernel_size='
                    f'{self.kernel_size[0]}, small_kernel='
                    f'{self.small_kernel}, num_reps={self.num_reps}, '
                    f'ghost_ratio={self.ghost_ratio}, style={self.style!r} '
                    'must be those of the checkpoint')
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return (f'{self.in_channels}, kernel_size={self.kernel_size[0]}, '
                f'small_kernel={self.small_kernel}, '
                f'num_paths={self.num_paths}, num_reps={self.num_reps}, '
                f'ghost_ratio={self.ghost_ratio}, form={self.form!r}, '
                f'deploy={self.deploy}')
