"""Models as ONNX graphs of standard operators, checked in onnxruntime."""
from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.config import Config
from torch import Tensor

from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.version import __version__

from .deploy import Parity
from .deployables import find_deployables
from .inputs import BUILD_ERRORS, InputError, in_a_line
from .model_files import (
    build_model,
    extractors,
    input_channels,
    load_weights,
    read_model_config,
    size_of,
)
from .onnx_parts import GraphPart, make_part, replace_pools

__all__ = ['OPSET', 'Export', 'export_onnx']

OPSET = 17
"""The first with layer normalisation; onnxruntime 1.12 and later run it."""
TOLERANCE = 1e-4  # of the largest value of an output
_INPUT = 'image'


@dataclass(frozen=True)
class Export:
    """What was written; ``str()`` is what is shown.

    Args:
        path (Path): The file.
        part (str): What is in it, of which model.
        dynamic (bool): Whether batch, height and width are free.
        left_out (str): What of the model is not in it; empty for nothing.
        operators (tuple[str]): Their names, all of the standard domain.
        parity (dict): By the shape of the image, outputs of onnxruntime
            against those of the model before it was deployed.
    """

    path: Path
    part: str
    dynamic: bool
    left_out: str
    operators: tuple[str, ...]
    parity: dict[tuple[int, ...], tuple[Parity, ...]]

    def __str__(self) -> str:
        lines = [f'{self.part}, opset {OPSET}, {len(self.operators)} kinds '
                 'of standard operators, '
                 + ('batch, height and width free' if self.dynamic else
                    'a fixed shape')]
        for shape, outputs in self.parity.items():
            lines.append(f'onnxruntime against the model, {_INPUT} '
                         f'{"x".join(map(str, shape))}:')
            lines += [f'  {parity}' for parity in outputs]
        if self.left_out:
            lines.append(f'not in it: {self.left_out}')
        return '\n'.join((*lines,
                          f'wrote {self.path} ({size_of(self.path)})'))


def export_onnx(config: str, checkpoint: str, out: str | os.PathLike, *,
                part: str = 'model', shape: Sequence[int] = (512, 512),
                dynamic: bool = False, force: bool = False) -> Export:
    """Writes the deployed form of a model as ONNX.

    The graph takes ``image``, float32 ``(B, C, H, W)``, normalised as the
    model's data preprocessor does it (``mean``, ``std`` and the order of the
    channels are metadata of the file). Its operators are of the standard
    domain alone. Before the file gets its name it is run in onnxruntime and
    compared with the model as it was trained; with ``dynamic`` at another
    batch and size as well.

    Args:
        config (str): Path, or ``'mmdet::...'``.
        checkpoint (str): Path or URL, of the trained or the deployed model.
        out (str): File to write, ``NAME.onnx``.
        part (str): See :func:`~.onnx_parts.make_part`. Defaults to
            ``'model'``.
        shape (Sequence[int]): Height and width. Defaults to 512x512.
        dynamic (bool): Whether batch, height and width stay free. Defaults
            to False: a batch of 1 and ``shape``.
        force (bool): Whether to overwrite.

    Raises:
        FileExistsError: If ``out`` exists and ``force`` is False.
        InputError: If an input cannot be used, a package is missing, or the
            model cannot be exported; the message names what stands against
            it.
    """
    out = Path(out)
    if out.suffix != '.onnx':
        raise InputError(f'out must end in .onnx, got {str(out)!r}')
    if not out.parent.is_dir():
        raise InputError(f'{out.parent} is no folder')
    if out.exists() and not force:
        raise FileExistsError(f'{out} exists')
    _check_packages()
    height, width = (check_int('shape', side, 32) for side in shape)
    cfg = read_model_config(config)
    model = build_model(cfg)
    load_weights(model, checkpoint)
    original = make_part(model, part)
    channels = input_channels(next(extractors(model))[1])
    shapes = [(1, channels, height, width)]
    if dynamic:
        shapes.append(_another_shape(original, shapes[0]))
    expected = {shape: _run(original, shape) for shape in shapes}
    names = list(original.names)
    deployed = make_part(_deployed(model), part)
    temporary = out.with_name(f'.{out.stem}.{os.getpid()}.onnx')
    try:
        _export(deployed, shapes[0], names,
                _free_axes(names, expected) if dynamic else {}, temporary)
        operators = _finish(temporary, cfg, part)
        parity = {shape: _check(temporary, shape, names, outputs,
                                type(model).__name__)
                  for shape, outputs in expected.items()}
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    return Export(out, f'{part} of {type(model).__name__}', dynamic,
                  original.left_out, operators, parity)


def _check_packages() -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(f'{error.name} is not installed: pip install '
                         "'shiftwise_mm[export]'") from error
    del onnx


def _image(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _run(part: GraphPart, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    try:
        return part(_image(shape))
    except InputError:
        raise
    except BUILD_ERRORS as error:
        raise InputError(f'{type(part.model).__name__} does not run on an '
                         f'image of {shape[2]}x{shape[3]}: '
                         f'{in_a_line(error)}') from error


def _another_shape(part: GraphPart, shape: tuple[int, ...]
                   ) -> tuple[int, ...]:
    """Another batch and size: odd, or multiples of 32 for who needs them."""
    _, channels, height, width = shape
    odd = (2, channels, height + 37, width + 22)
    try:
        _run(part, odd)
        return odd
    except InputError:
        return (2, channels, -(-height // 32 + 1) * 32,
                -(-width // 32 + 2) * 32)


def _deployed(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for name, module in list(find_deployables(model)):
        try:
            module.switch_to_deploy()
        except (TypeError, ValueError) as error:
            raise InputError(f'{name} cannot be deployed: {error}') from error
    replace_pools(model)
    return model.requires_grad_(False)


def _free_axes(names: list[str], expected: dict) -> dict:
    """Names of the axes whose size is not that of all images."""
    one, other = expected.values()
    axes = {_INPUT: {0: 'batch', 2: 'height', 3: 'width'}}
    for name, a, b in zip(names, one, other, strict=True):
        axes[name] = {i: f'{name}_{i}' if i else 'batch'
                      for i in range(a.dim()) if a.shape[i] != b.shape[i]}
    return axes


@contextmanager
def _quiet():
    """Without remarks on traces that the comparison answers."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def _export(part: GraphPart, shape: tuple[int, ...], names: list[str],
            axes: dict, path: Path) -> None:
    name = type(part.model).__name__
    try:
        with _quiet(), torch.no_grad():
            # By a trace: torch.export specialises sizes that libraries read
            # as numbers, and takes a hundred times as long.
            torch.onnx.export(
                part.eval(), (_image(shape), ), str(path), dynamo=False,
                opset_version=OPSET, input_names=[_INPUT],
                output_names=names, dynamic_axes=axes)
    except torch.onnx.errors.UnsupportedOperatorError as error:
        operator = str(error).partition("'")[2].partition("'")[0]
        raise InputError(f'{name} cannot be exported: ONNX has no '
                         f'{operator or error}') from error
    except (*BUILD_ERRORS, torch.onnx.errors.OnnxExporterError) as error:
        raise InputError(f'{name} cannot be exported: '
                         f'{in_a_line(error)}') from error


def _finish(path: Path, cfg: Config, part: str) -> tuple[str, ...]:
    """Checks a file by the standard, and adds what its user must know."""
    import onnx
    model = onnx.load(str(path))
    nodes = [node for graph in (model.graph, *model.functions)
             for node in _nodes(graph)]
    foreign = sorted({f'{node.domain}::{node.op_type}' for node in nodes
                      if node.domain not in ('', 'ai.onnx')})
    if foreign:
        raise InputError(f'the {part} cannot be exported: '
                         f'{", ".join(foreign)} is no standard operator of '
                         'ONNX')
    for key, value in _metadata(cfg).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # of several types of the checker's own
        raise InputError('the checker of ONNX refuses the graph: '
                         f'{in_a_line(error)}') from error
    onnx.save(model, str(path))
    return tuple(sorted({node.op_type for node in nodes}))


def _nodes(graph):
    """Nodes of a graph and of those within its nodes."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _metadata(cfg: Config) -> dict[str, str]:
    model = cfg.to_dict()['model']
    given = model.get('data_preprocessor') or cfg.get('data_preprocessor')
    given = given if isinstance(given, Mapping) else {}
    found = {key: json.dumps(given[key]) for key in ('mean', 'std')
             if given.get(key) is not None}
    swaps = given.get('bgr_to_rgb') or given.get('to_rgb')
    return {**found, 'channels': 'RGB' if swaps else 'as loaded',
            'config': Path(cfg.filename or '').name,
            'shiftwise_mm': __version__}


def _check(path: Path, shape: tuple[int, ...], names: list[str],
           expected: Sequence[Tensor], name: str) -> tuple[Parity, ...]:
    """Runs a file and compares."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider'])
        outputs = session.run(names, {_INPUT: _image(shape).numpy()})
    except Exception as error:  # onnxruntime's are of no common type
        raise InputError(
            f'{name} cannot be exported: onnxruntime does not run its graph '
            f'on {"x".join(map(str, shape))}: {in_a_line(error)}') from error
    found = tuple(
        Parity.of(n, torch.from_numpy(a), b) if a.shape == tuple(b.shape)
        else Parity(n, a.shape, float('inf'), b.abs().max().item())
        for n, a, b in zip(names, outputs, expected, strict=True))
    wrong = [parity for parity in found if not parity.holds(TOLERANCE)]
    if wrong:
        raise InputError(
            f'{name} cannot be exported: on {"x".join(map(str, shape))} '
            f'onnxruntime differs by more than {TOLERANCE:g} of the largest '
            'value: ' + '; '.join(map(str, wrong)))
    return found
