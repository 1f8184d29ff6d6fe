"""How deep a parameter lies, for layer-wise decay of the learning rate."""
from __future__ import annotations

__all__ = ['parameter_depth']


def parameter_depth(name: str, num_blocks: tuple[int, ...],
                    num_layers: int | None = None,
                    decay_type: str = 'layer_wise') -> tuple[int, int]:
    """Depth of a parameter in a network of stages, and number of depths.

    With ``L = num_layers``, layer-wise: stem 0; stage 1 -> 1; downsampling 1
    and stage 2 -> 2; downsampling 2 -> 3; block ``b`` of stage 3 ->
    ``min(3 + b // 3, L)``; downsampling 3 and stage 4 -> L; output norms and
    all outside of the backbone -> L + 1. Stage-wise: all downsampling 0;
    stage ``i`` -> ``i``; the rest one more than the last stage, or L + 1 if
    ``L`` is given. This is ConvNeXt's grouping, as mmdet and mmseg have it.

    Args:
        name (str): ``downsample_layers.{i}...``, ``stages.{i}.{block}...``,
            or anything else for what is outside of these.
        num_blocks (tuple[int]): Blocks of each stage.
        num_layers (int, optional): ``L``. Defaults, layer-wise, to 12 if the
            third stage has more than 9 blocks, else 6.
        decay_type (str): ``'layer_wise'`` or ``'stage_wise'``.

    Returns:
        tuple[int, int]: The depth, and the number of depths.
    """
    part, _, rest = name.partition('.')
    inside = part in ('downsample_layers', 'stages')
    if decay_type == 'stage_wise':
        last = (len(num_blocks) if num_layers is None else num_layers) + 1
        if not inside:
            return last, last + 1
        stage = int(rest.split('.')[0]) + 1 if part == 'stages' else 0
        return min(stage, last), last + 1
    if num_layers is None:
        num_layers = 12 if max(num_blocks[2:3], default=0) > 9 else 6
    if not inside:
        return num_layers + 1, num_layers + 2
    stage, second = rest.split('.')[:2]
    stage = int(stage)
    if stage >= 3:
        depth = num_layers
    elif part == 'downsample_layers':
        depth = stage + 1 if stage else 0
    else:
        depth = stage + 1 if stage < 2 else 3 + int(second) // 3
    return min(depth, num_layers), num_layers + 2
