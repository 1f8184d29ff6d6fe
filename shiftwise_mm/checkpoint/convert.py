"""Published names of weights as ours: a pure function, with a report."""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

__all__ = ['FAMILIES', 'ConversionReport', 'Family', 'convert_state_dict',
           'stage_densities']


@dataclass(frozen=True)
class Family:
    """One way of naming the weights of a backbone.

    Args:
        name (str): Shown to users.
        markers (tuple[str]): Parts of names; all must occur in a file.
        renames (tuple[tuple[str, str]]): Parts of names and what replaces
            them, in this order.
    """

    name: str
    markers: tuple[str, ...]
    renames: tuple[tuple[str, str], ...] = ()

    def native(self, name: str) -> str:
        """Our name of a weight."""
        for old, new in self.renames:
            name = name.replace(old, new)
        return name


_SHIFTWISE = (('.LoRAs.', '.convs.'), ('.bn_lora1.', '.norm_h.'),
              ('.bn_lora2.', '.norm_v.'), ('.bn_small.', '.norm_i.'))
_SMALL = (('.small_conv.conv.', '.conv_i.'), ('.small_conv.bn.', '.norm_i.'))
# The published LoRA1 is the vertical kernel, LoRA2 the horizontal one.
_SLAK = (('.LoRA1.bn.', '.norm_v.'), ('.LoRA2.bn.', '.norm_h.'), *_SMALL)

# The first whose markers all occur is what a file is recognised as.
FAMILIES = (
    Family('ShiftWise v2, published names',
           ('.large_kernel.LoRAs.', '.pwconv1.1.'), _SHIFTWISE),
    Family('ShiftWise v1, published names',
           ('.large_kernel.LoRAs.', '.pwconv1.weight'), _SHIFTWISE),
    Family('a part of a ShiftWise, published names',
           ('.large_kernel.LoRAs.', ), _SHIFTWISE),
    Family('ShiftWise with merged paths, published names',
           ('.large_kernel.LoRA.weight', ),
           (('.LoRA.weight', '.convs.0.weight'), *_SHIFTWISE)),
    Family('SLaK, published names', ('.large_kernel.LoRA1.conv.', ),
           (('.LoRA1.conv.', '.conv_v.'), ('.LoRA2.conv.', '.conv_h.'),
            *_SLAK)),
    Family('SLaK in shift-wise form, published names',
           ('.large_kernel.LoRA1.split_convs.', ),
           (('.LoRA1.split_convs.', '.conv_v.'),
            ('.LoRA2.split_convs.', '.conv_h.'), *_SLAK)),
    Family('SLaK with shared, gated kernels, published names',
           ('.large_kernel.LoRA.split_convs.', ),
           (('.LoRA.split_convs.', '.conv.'), ('.LoRA.lora1.', '.gate_h.'),
            ('.LoRA.lora2.', '.gate_v.'), ('.LoRA.bn_lora1.', '.norm_h.'),
            ('.LoRA.bn_lora2.', '.norm_v.'), *_SMALL)),
    Family('UniRepLKNet, deployed, published names',
           ('.dwconv.lk_origin.bias', ), (('.dwconv.lk_origin.',
                                           '.dwconv.'), )),
    # Our names are the published ones.
    Family('UniRepLKNet', ('.dwconv.', '.pwconv1.1.')),
    Family('ConvNeXt', ('.dwconv.', '.pwconv1.weight')),
    Family('ShiftWiseNet, native names', ('.large_kernel.rep_index', )),
    Family('ShiftWiseNet, native names', ('.large_kernel.convs.', )),
    Family('SLaK, native names', ('.large_kernel.conv_i.', )),
    Family('SLaK, deployed, native names', ('.large_kernel.strip_h.', )),
)
_CLASSIFIER = {'norm.weight': 'norm.weight', 'norm.bias': 'norm.bias',
               'head.weight': 'fc.weight', 'head.bias': 'fc.bias'}


@dataclass(frozen=True)
class ConversionReport:
    """What became of a file's weights; ``str()`` is what is logged.

    Args:
        recognised (str, optional): Name of the family; None if the file is
            not one of ours.
        names (dict): Names in the file to the names that they have now, of
            all weights that were handed on.
        converted (tuple[str]): Those of the file whose own name changed (a
            prefix aside).
        ignored (dict): Names of the others, to the reason.
        prefix (str): Where the backbone lay in the file.
        densities (tuple[float]): For sparse files the share of taps (of
            weights, for long kernels) that are not zero, by stage.
        source (str): Where the file came from.
        container (str): Where in the file the weights lay.
    """

    recognised: str | None
    names: dict[str, str]
    converted: tuple[str, ...]
    ignored: dict[str, str] = field(default_factory=dict)
    prefix: str = ''
    densities: tuple[float, ...] = ()
    source: str = ''
    container: str = ''

    @property
    def changed(self) -> bool:
        """Whether anything has another name now, or was left out."""
        return bool(self.ignored) or any(
            old != new for old, new in self.names.items())

    def ignoring(self, ignored: Mapping[str, str]) -> ConversionReport:
        """The report, with further names of the file ignored."""
        left = {k: v for k, v in self.names.items() if k not in ignored}
        return replace(
            self, names=left, ignored={**self.ignored, **ignored},
            converted=tuple(k for k in self.converted if k in left))

    def __str__(self) -> str:
        where = ' in '.join(filter(None, (self.container and
                                          repr(self.container),
                                          self.source)))
        prefix = f', prefix {self.prefix!r}' if self.prefix else ''
        lines = [
            f'weights{where and " of "}{where}: recognised as '
            f'{self.recognised or "none of ours"}{prefix}',
            f'{len(self.names)} tensors loaded, {len(self.converted)} of '
            f'them under converted names; {len(self.ignored)} ignored'
        ]
        by_reason = {}
        for name, why in self.ignored.items():
            by_reason.setdefault(why, []).append(name)
        lines += [f'ignored, {why}: {first_few(names)}'
                  for why, names in by_reason.items()]
        if self.densities:
            lines.append('sparse; share of taps that are not zero, by stage: '
                         + ', '.join(f'{d:.4f}' for d in self.densities))
        return '\n  '.join(lines)


def first_few(names, count: int = 4) -> str:
    """The first names, and how many there are in all."""
    names = list(names)
    shown = ', '.join(names[:count])
    return shown if len(names) <= count else f'{shown}, ... ({len(names)})'


def convert_state_dict(
    state_dict: Mapping[str, Tensor], *, prefix: str = '',
    head: str | None = None) -> tuple[dict[str, Tensor], ConversionReport]:
    """Gives published weights our names; native ones keep theirs.

    A prefix ``module.``, ``backbone.`` or both is taken off; a file that has
    its backbone under ``prefix`` already keeps it there. Tensors are handed
    on as they are, nothing is copied; the input is not changed.

    Args:
        state_dict (Mapping): Names to tensors.
        prefix (str): Put before the names of the backbone. With a prefix,
            weights beside the backbone (of a neck, of heads) are handed on,
            without one they are ignored.
        head (str, optional): Prefix of the classifier (published ``norm.*``
            and ``head.*``), which becomes ``norm.*`` and ``fc.*``. Defaults
            to None: it is ignored.

    Returns:
        tuple[dict, ConversionReport]: The new state dict and the report. What
        is none of ours keeps its names, and ``recognised`` is None.
    """
    outer, inner, inside = _locate(state_dict, prefix)
    family = _recognise(inside)
    new, names, converted, ignored = {}, {}, [], {}
    for name, value in state_dict.items():
        bare = name.removeprefix(outer)
        own = bare.removeprefix(inner)
        if not bare.startswith(inner):  # beside the backbone
            target = bare if prefix else None
            why = 'beside the backbone'
        elif own in _CLASSIFIER:
            target = None if head is None else head + _CLASSIFIER[own]
            why = 'of a classifier, which is not loaded'
        else:
            native = family.native(own) if family else own
            if native != own:
                converted.append(name)
            # What is none of ours may lie there already.
            target = native if not family and native.startswith(prefix) \
                else prefix + native
        if target is None:
            ignored[name] = why
        else:
            new[target] = value
            names[name] = target
    densities = stage_densities(new, prefix)
    return new, ConversionReport(
        family.name if family else None, names, tuple(converted), ignored,
        prefix=outer + inner,
        densities=densities if any(d < 1 for d in densities) else ())


def _locate(names: Mapping[str, Tensor],
            prefix: str) -> tuple[str, str, list[str]]:
    """Where the backbone lies in a file: two prefixes, and its names.

    The place that a model gives it is looked for first: what is called
    ``stages`` elsewhere may be another network's.
    """
    for inner in dict.fromkeys((prefix, 'backbone.', '')):
        where = re.compile(r'((?:module\.)?)' + re.escape(inner)
                           + r'(?:stages|downsample_layers)\.\d+\.')
        found = [match for match in map(where.match, names) if match]
        if found:
            return found[0][1], inner, [match.string for match in found]
    return '', '', []


def _recognise(names: Iterable[str]) -> Family | None:
    text = '\n'.join(names)
    return next((family for family in FAMILIES
                 if all(marker in text for marker in family.markers)), None)


def stage_densities(state_dict: Mapping[str, Tensor],
                    prefix: str = '') -> tuple[float, ...]:
    """Share of the large kernels that is not zero, by stage.

    Of small kernels the unit is a tap, one ``N x N`` kernel of a channel in
    a path: coarse sparsity takes or leaves it whole. Of long kernels it is a
    weight.

    Args:
        state_dict (Mapping): Native names to tensors.
        prefix (str): Where the backbone lies.

    Returns:
        tuple[float]: Empty if there are no such kernels.
    """
    pattern = re.compile(
        re.escape(prefix) + r'stages\.(\d+)\.\d+\.large_kernel\.'
        r'(?:convs\.\d+|conv|conv_[hv])\.weight')
    kept, total = {}, {}
    for name, weight in state_dict.items():
        match = pattern.fullmatch(name)
        if not match or not isinstance(weight, Tensor) or weight.dim() != 4:
            continue
        units = weight != 0
        if weight.shape[2] == weight.shape[3]:
            units = units.flatten(1).any(1)
        stage = int(match.group(1))
        kept[stage] = kept.get(stage, 0) + int(units.sum())
        total[stage] = total.get(stage, 0) + units.numel()
    return tuple(kept[stage] / total[stage] for stage in sorted(total))
