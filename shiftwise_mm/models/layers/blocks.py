"""Residual blocks: a layer that mixes places, then a feed-forward network."""
from __future__ import annotations

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from shiftwise_mm.ops.gelu_grn import gelu_grn_, gelu_grn_is_faster
from shiftwise_mm.ops.linear import linear, linear_onto, product

from .dilated_reparam import DilatedReparamConv2d
from .drop_path import DropPath
from .fold import affine_of, fold_conv
from .gelu_grn_linear import gelu_grn_linear
from .joining import is_chain, may_be_joined
from .norm import GRN, NCHWtoNHWC, NHWCtoNCHW, SEModule
from .norm_cfg import build_norm
from .pointwise_linear import PointwiseLinear
from .repeated import RepeatedCalls
from .shiftwise_conv2d import ShiftWiseConv2d

__all__ = ['ConvNeXtBlock', 'UniRepBlock']


class _Block(BaseModule):
    """What both blocks share: the mixing layer, layer scale, drop path.

    Args:
        channels (int): ``C``.
        mixer (nn.Module): Layer that mixes places, ``(B, C, H, W)`` in and
            out.
        mixer_name (str): Its name in the block, the published one.
        drop_path_rate (float): Probability to drop the branch.
        layer_scale_init_value (float, optional): Start of ``gamma``; no layer
            scale if None or not positive.
        deploy (bool): Whether to build the deployed block (with a mixing
            layer that is deployed already).
    """

    def __init__(self, channels: int, mixer: nn.Module, *, mixer_name: str,
                 drop_path_rate: float,
                 layer_scale_init_value: float | None, deploy: bool) -> None:
        super().__init__()
        self.mixer_name = mixer_name
        self.add_module(mixer_name, mixer)
        self.deploy = deploy
        if deploy and isinstance(mixer, ShiftWiseConv2d):
            mixer.keep_order()  # its readers' weights are stored like this
        scaled = (not deploy and layer_scale_init_value is not None
                  and layer_scale_init_value > 0)
        self.gamma = nn.Parameter(
            torch.full((channels, ), float(layer_scale_init_value))
        ) if scaled else None
        self.drop_path = DropPath(drop_path_rate)

    @property
    def mixer(self) -> nn.Module:
        """The layer that mixes places."""
        return getattr(self, self.mixer_name)

    def _fold_mixer(self, scale: Tensor | None = None,
                    offset: Tensor | None = None) -> None:
        """Deploys the mixing layer, with the affine behind it folded in."""
        mixer = self.mixer
        if isinstance(mixer, DilatedReparamConv2d):
            mixer = mixer.merged()
        if isinstance(mixer, nn.Conv2d):
            if scale is not None:
                mixer = fold_conv(mixer, scale, offset)
        else:
            mixer.switch_to_deploy()
            if scale is not None:
                mixer.absorb_affine(scale, offset)
            order = (mixer.keep_order()
                     if isinstance(mixer, ShiftWiseConv2d) else None)
            if order is not None:
                self._read_in_order(order.argsort())
        setattr(self, self.mixer_name, mixer)

    def _read_in_order(self, back: Tensor) -> None:
        """Changes what reads the mixing layer: channel ``j`` of it is what
        was channel ``back[j]``.
        """
        raise NotImplementedError

    @property
    def order(self) -> Tensor | None:
        """The order in which the ghosts of a deployed shift-wise layer are
        behind the other channels; None if they are, or there are none.
        """
        mixer = self.mixer
        if not (self.deploy and isinstance(mixer, ShiftWiseConv2d)
                and mixer.keeps_order):
            return None
        return mixer.order

    @torch.no_grad()
    def put_in_order(self, order: Tensor) -> None:
        """Changes the deployed block to one whose input and output channel
        ``i`` is what was ``order[i]``.

        Args:
            order (Tensor): :attr:`order`.
        """
        self.mixer.put_in_order(order)
        self._read_in_order(order)
        last = self.pwconv2
        last = last[0] if isinstance(last, nn.Sequential) else last
        for tensor in (last.weight, last.bias):
            tensor.copy_(tensor[order])


def _check_part(name: str, part: nn.Module, *kinds: type) -> None:
    """Refuses to fold what was put in a part's place."""
    if type(part) not in kinds:
        raise TypeError(
            f'{name} must be {" or ".join(k.__name__ for k in kinds)} to be '
            f'deployed, got {type(part).__name__}; merge adapters and '
            'parametrizations before')


class UniRepBlock(_Block):
    r"""Residual block of the unirep style (UniRepLKNet, ``ShiftWise_v2``).

    .. math::
        x + \mathrm{drop}(\gamma \cdot \mathrm{BN}(W_2\,\mathrm{GRN}(
        \mathrm{GELU}(W_1\,\mathrm{SE}(\mathrm{BN}(\mathrm{mixer}(x)))))))

    with a hidden width of four times the channels and an SE layer with a
    quarter of them. Source: UniRepLKNet (arXiv 2311.15599).

    Args:
        channels (int): ``C``.
        mixer (nn.Module): Layer that mixes places.
        mixer_name (str): Its name in the block.
        drop_path_rate (float): Probability to drop the branch.
        layer_scale_init_value (float, optional): Start of ``gamma``; no layer
            scale if None or not positive.
        norm_cfg (dict): The batch-norms.
        deploy (bool): Whether to build the deployed block: without norms, its
            mixing layer deployed.

    Shape:
        ``(B, C, H, W)`` in, the same out.
    """

    def __init__(self, channels: int, mixer: nn.Module, *, mixer_name: str,
                 drop_path_rate: float,
                 layer_scale_init_value: float | None, norm_cfg: dict,
                 deploy: bool) -> None:
        super().__init__(
            channels, mixer, mixer_name=mixer_name,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value, deploy=deploy)
        hidden = 4 * channels
        self.norm = (nn.Identity() if deploy else
                     build_norm(norm_cfg, channels))
        self.se = SEModule(channels, channels // 4)
        self.pwconv1 = nn.Sequential(NCHWtoNHWC(),
                                     PointwiseLinear(channels, hidden))
        self.act = nn.Sequential(nn.GELU(), GRN(hidden, bias=not deploy))
        self.pwconv2 = nn.Sequential(
            PointwiseLinear(hidden, channels, bias=deploy), NHWCtoNCHW())
        if not deploy:
            self.pwconv2.append(build_norm(norm_cfg, channels))
        self._repeated = RepeatedCalls()

    def forward(self, x: Tensor) -> Tensor:
        inference = self.deploy and not (self.training
                                         or torch.is_grad_enabled())
        if inference:
            call = self._repeated.find(x)
            if call is not None:
                return call(x)
        y, joined = self._mix(x), self._is_joined()
        if joined and inference and len(self.pwconv2) == 2:
            second, permute = self.pwconv2
            out = permute(linear_onto(
                x.permute(0, 2, 3, 1), self._hidden(y), second.weight,
                second.bias))
            self._repeated.keep(self, x)
            return out
        y = self._feed_forward(y, joined)
        if self.gamma is not None:
            y = y * self.gamma.view(-1, 1, 1)
        return x + self.drop_path(y)

    def _is_joined(self) -> bool:
        """Whether the feed-forward network's parts are computed together."""
        first, act, second = self.pwconv1, self.act, self.pwconv2
        return (is_chain(first, NCHWtoNHWC, PointwiseLinear)
                and is_chain(act, nn.GELU, GRN)
                and is_chain(second, PointwiseLinear, NHWCtoNCHW)
                and may_be_joined(self.drop_path, DropPath)
                and len(first) == len(act) == 2
                and act[0].approximate == 'none')

    def _mix(self, x: Tensor) -> Tensor:
        """``se(norm(mixer(x)))``; deployed shift-wise layers take SE in."""
        mixer, se = self.mixer, self.se
        if self.deploy and isinstance(mixer, ShiftWiseConv2d) and \
                not torch.is_grad_enabled() and \
                may_be_joined(se, SEModule) and se.joined and \
                may_be_joined(self.norm, nn.Identity):
            return mixer(x, se)
        return se(self.norm(mixer(x)))

    def _read_in_order(self, back: Tensor) -> None:
        down, up, linear = self.se.down, self.se.up, self.pwconv1[1]
        down.weight.copy_(down.weight[:, back])
        up.weight.copy_(up.weight[back])
        up.bias.copy_(up.bias[back])
        linear.weight.copy_(linear.weight[:, back])

    def _feed_forward(self, y: Tensor, joined: bool) -> Tensor:
        """``pwconv2(act(pwconv1(y)))``; ``joined`` with as few wide tensors
        as can be.
        """
        if joined and not torch.is_grad_enabled():
            return self.pwconv2(self._hidden(y))
        y = self.pwconv1(y)
        if not joined or self.deploy or not y.requires_grad:
            return self.pwconv2(self.act(y))
        grn, second = self.act[1], self.pwconv2[0]
        y = gelu_grn_linear(y, grn.gamma, grn.beta, second.weight, grn.eps)
        return self.pwconv2[1:](y)

    def _hidden(self, y: Tensor) -> Tensor:
        """``act(pwconv1(y))`` in one memory, without gradients."""
        first, grn = self.pwconv1[1], self.act[1]
        y = self.pwconv1[0](y)
        if first.bias is not None and grn.beta is None and \
                gelu_grn_is_faster(y, first.out_features):
            return gelu_grn_(product(y, first.weight), first.bias, grn.gamma,
                             grn.eps)
        return grn.forward_(linear(y, first.weight, first.bias, gelu=True))

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        r"""Folds every norm, the bias of GRN and the layer scale.

        With scale and offset :math:`s, o` of the last batch-norm

        .. math::
            W = \mathrm{diag}(\gamma s)\,W_2, \quad
            b = \gamma (s\,W_2 \beta_{GRN} + o)

        The function in eval mode stays the same up to rounding. A second
        call does nothing.

        Raises:
            TypeError: If a norm has no running statistics to fold, or another
                module is in the place of a part.
        """
        if self.deploy:
            return
        _check_part('se', self.se, SEModule)
        for name in ('down', 'up'):
            _check_part(f'se.{name}', getattr(self.se, name), nn.Conv2d)
        for name, chain, length in (('pwconv1', self.pwconv1, 2),
                                    ('act', self.act, 2),
                                    ('pwconv2', self.pwconv2, 3)):
            _check_part(name, chain, nn.Sequential)
            if len(chain) != length:
                raise TypeError(f'{name} must have {length} modules to be '
                                f'deployed, got {len(chain)}')
        linear, permute, norm = self.pwconv2
        grn = self.act[1]
        _check_part('pwconv1[1]', self.pwconv1[1], nn.Linear, PointwiseLinear)
        _check_part('act[1]', grn, GRN)
        _check_part('pwconv2[0]', linear, nn.Linear, PointwiseLinear)
        scale, offset = (t.to(linear.weight.device)
                         for t in affine_of(norm, linear.out_features))
        self._fold_mixer(*affine_of(self.norm, linear.out_features))
        self.norm = nn.Identity()
        weight = linear.weight.double() * scale.view(-1, 1)
        bias = weight @ grn.beta.flatten().double() + offset
        if self.gamma is not None:
            weight = weight * self.gamma.double().view(-1, 1)
            bias = bias * self.gamma.double()
        folded = PointwiseLinear(
            linear.in_features, linear.out_features,
            device=linear.weight.device, dtype=linear.weight.dtype)
        folded.weight.copy_(weight)
        folded.bias.copy_(bias)
        self.pwconv2 = nn.Sequential(folded, permute)
        self.gamma = grn.beta = None
        self.deploy = True


class ConvNeXtBlock(_Block):
    r"""Residual block of ConvNeXt, SLaK and ``ShiftWise_v1``.

    .. math::
        x + \mathrm{drop}(\gamma \cdot (W_2\,\mathrm{GELU}(W_1\,
        \mathrm{LN}(\mathrm{mixer}(x)) + b_1) + b_2))

    with a hidden width of four times the channels. Source: ConvNeXt (arXiv
    2201.03545).

    Args:
        channels (int): ``C``.
        mixer (nn.Module): Layer that mixes places.
        mixer_name (str): Its name in the block.
        drop_path_rate (float): Probability to drop the branch.
        layer_scale_init_value (float, optional): Start of ``gamma``; no layer
            scale if None or not positive.
        deploy (bool): Whether to build the deployed block: without layer
            scale, its mixing layer deployed.
        norm_cfg (dict): The layer norm. Defaults to
            ``dict(type='LN', eps=1e-6)``.

    Shape:
        ``(B, C, H, W)`` in, the same out.

    Raises:
        ValueError: If ``norm_cfg`` is not that of a layer norm.
    """

    def __init__(self, channels: int, mixer: nn.Module, *, mixer_name: str,
                 drop_path_rate: float,
                 layer_scale_init_value: float | None, deploy: bool,
                 norm_cfg: dict = dict(type='LN', eps=1e-6)) -> None:
        super().__init__(
            channels, mixer, mixer_name=mixer_name,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value, deploy=deploy)
        self.norm = build_norm(norm_cfg, channels)
        if not isinstance(self.norm, nn.LayerNorm):
            raise ValueError('norm_cfg must be that of a layer norm (LN), got '
                             f'{norm_cfg!r}')
        self.pwconv1 = PointwiseLinear(channels, 4 * channels)
        self.act = nn.GELU()
        self.pwconv2 = PointwiseLinear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.mixer(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.act(self.pwconv1(y)))
        if self.gamma is not None:
            y = y * self.gamma
        return x + self.drop_path(y.permute(0, 3, 1, 2))

    def _read_in_order(self, back: Tensor) -> None:
        self.norm.weight.copy_(self.norm.weight[back])
        self.norm.bias.copy_(self.norm.bias[back])
        self.pwconv1.weight.copy_(self.pwconv1.weight[:, back])

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Folds the mixing layer's norms, and the layer scale.

        The function in eval mode stays the same up to rounding. A second
        call does nothing.

        Raises:
            TypeError: If a norm has no running statistics to fold, or another
                module is in the place of a part.
        """
        if self.deploy:
            return
        for name in ('pwconv1', 'pwconv2'):
            _check_part(name, getattr(self, name), nn.Linear, PointwiseLinear)
        self._fold_mixer()
        if self.gamma is not None:
            self.pwconv2.weight.mul_(self.gamma.view(-1, 1))
            self.pwconv2.bias.mul_(self.gamma)
        self.gamma = None
        self.deploy = True
