"""Sub-command ``model``: whole backbones, inference and training."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn as nn
from torch import Tensor

from .agreement import check_near
from .contestants import select
from .counts import Work, network_work
from .memory import peak_memory
from .model_goals import model_goals
from .networks import ENTRIES, FAMILIES, Entry, family, twin
from .report import Report, Table
from .settings import Settings
from .step_memory import LAYOUTS, loss_of, step_memory, training_step
from .timing import Timing, measure
from .trial import mega, percents

__all__ = ['run_model']

# Height, width; images in inference and in training.
SIZES = (((224, 224), 4, 8), ((800, 1344), 1, 2))
LARGE = 512 * 512  # pixels from which on with_cp has a row
# Rounding through some twenty blocks; of the gradients through batch-norms.
OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-3, 2e-2


@dataclass
class Outcome:
    """Figures of one row over its layouts.

    Attributes:
        timings (dict[str, Timing]): By layout.
        memory (dict[str, int | None]): Likewise, peak bytes.
        work (Work): Of one call.
        batch (int): Images of one call.
    """

    batch: int
    work: Work
    timings: dict[str, Timing] = field(default_factory=dict)
    memory: dict[str, int | None] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        """The faster layout."""
        return min(self.timings, key=lambda name: self.timings[name].median)

    @property
    def seconds(self) -> float:
        """Median in the faster layout."""
        return self.timings[self.layout].median


def run_model(settings: Settings, *, shape: Sequence[int] | None = None,
              batch: int | None = None,
              options: dict[str, dict] | None = None) -> Report:
    """Measures backbones: inference, a training step, their memory.

    Inference is a forward pass without gradients in eval mode; a training
    step is a forward pass in training mode, a sum over fixed random weights
    as the loss, and a backward pass (no optimizer, which all networks share).
    Every network runs in both layouts, and the faster counts.

    Args:
        settings (Settings): Device, time, rows.
        shape (Sequence[int], optional): ``(H, W)``; by default 224x224 and a
            detector's 800x1344.
        batch (int, optional): Images; by default 4 in inference and 8 in
            training, of 800x1344 1 and 2.
        options (dict, optional): Arguments of the networks by family, for
            smaller ones.

    Raises:
        ValueError: If an argument is not allowed.
        Disagreement: If a composition computes something else than its
            family.
    """
    sizes = SIZES if shape is None else [
        row for row in SIZES if row[0] == tuple(shape)
    ] or [(tuple(shape), 4, 8)]
    with settings.start('model') as (device, peaks, report):
        for size, images, trained in sizes:
            entries = [e for e in select(list(ENTRIES), settings.rows)
                       if not e.with_cp or size[0] * size[1] >= LARGE
                       or settings.rows]
            inference, step = (
                _run(settings, device, entries, size, batch or count, train,
                     options or {})
                for count, train in ((images, False), (trained, True)))
            for title, (outcomes, notes) in (('inference', inference),
                                             ('training step', step)):
                if outcomes:
                    report.tables.append(_table(
                        f'{title}, {size[0]}x{size[1]}', outcomes, notes,
                        peaks))
            report.goals += model_goals(
                size, {e: o for e, o in inference[0].items()},
                {e: o for e, o in step[0].items()})
    return report


def _run(settings: Settings, device: torch.device, entries: list[Entry],
         size: Sequence[int], batch: int, train: bool,
         options: dict) -> tuple[dict[Entry, Outcome], list[str]]:
    """Checks and measures all entries of one mode."""
    entries = [e for e in entries if (e.how == 'training form'
                                      if train else not e.with_cp)]
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 3, *size, generator=generator).to(device)
    calls, outcomes, notes = {}, {}, []
    for name in FAMILIES:
        rows = [e for e in entries if e.family == name]
        if not rows:
            continue
        try:
            base = family(name, device, **options.get(name, {}))
        except ImportError as error:
            notes.append(f'{name} is left out: {error}')
            continue
        base.train(train)
        expected = _results(base, image, train)
        work = _work(base, image[:1], batch, train)
        for entry in rows:
            network = entry.make(base)
            outcomes[entry] = Outcome(
                batch, work if train else _work(network, image[:1], batch,
                                                False))
            for layout, order in LAYOUTS.items():
                one = twin(network, order)
                one.train(train)  # mmdet's returns nothing
                given = image.contiguous(memory_format=order)
                _check(f'{entry.name}, {layout}',
                       _results(one, given, train), expected)
                calls[entry, layout] = _call(one, given, train)
    timings = measure(calls, device, settings.budget)
    for (entry, layout), call in calls.items():
        outcomes[entry].timings[layout] = timings[entry, layout]
        if not train or device.type != 'cpu':
            outcomes[entry].memory[layout] = peak_memory(call, device)
    if train and device.type == 'cpu':
        calls.clear()  # with their networks
        for entry, outcome in outcomes.items():
            outcome.memory[outcome.layout] = step_memory(
                entry, size=size, batch=batch, layout=outcome.layout,
                options=options.get(entry.family, {}))
    return outcomes, notes


def _call(network: nn.Module, image: Tensor,
          train: bool) -> Callable[[], object]:
    """One call to measure."""

    @torch.no_grad()
    def infer() -> object:
        return network(image)

    return training_step(network, image) if train else infer


def _results(network: nn.Module, image: Tensor,
             train: bool) -> tuple[tuple, dict[tuple, Tensor]]:
    """Outputs, and the gradients of the parameters.

    By their order: a composition has them under other names, not in another
    order.
    """
    if not train:
        with torch.no_grad():
            return tuple(network(image)), {}
    parameters = [p for p in network.parameters() if p.requires_grad]
    outs = network(image)
    grads = torch.autograd.grad(loss_of(outs), parameters, allow_unused=True)
    return (tuple(out.detach() for out in outs),
            {i: g for i, g in enumerate(grads) if g is not None})


def _check(name: str, found: tuple, expected: tuple) -> None:
    for i, (out, right) in enumerate(zip(found[0], expected[0],
                                         strict=True)):
        check_near(name, f'output {i}', out, right, OUTPUT_TOLERANCE)
    # Biases in front of a batch-norm have none but rounding errors.
    floor = 1e-3 * max((g.abs().max().item() for g in expected[1].values()),
                       default=0.)
    for key, right in expected[1].items():
        check_near(name, f'gradient of parameter {key}', found[1][key],
                   right, GRADIENT_TOLERANCE, floor)


def _work(network: nn.Module, image: Tensor, batch: int,
          train: bool) -> Work:
    """Of a batch: a forward pass, or three of them for a step."""
    mode = network.training
    network.eval()
    with torch.no_grad():
        work = network_work(network, image)
    network.train(mode)
    factor = batch * (3 if train else 1)
    return Work(factor * work.macs, factor * work.bytes)


def _table(title: str, outcomes: dict[Entry, Outcome], notes: list[str],
           peaks) -> Table:
    """One row a network, in its faster layout."""
    table = Table(title)
    for entry, outcome in outcomes.items():
        layout = outcome.layout
        table.rows.append({
            'network': entry.name,
            'batch': outcome.batch,
            'ms': 1e3 * outcome.seconds,
            'images/s': outcome.batch / outcome.seconds,
            'layout': layout,
            **{f'{other} ms': 1e3 * timing.median
               for other, timing in outcome.timings.items()},
            'peak MB': mega(outcome.memory[layout]),
            'GMAC': outcome.work.macs / 1e9,
            **percents(peaks, outcome.seconds, outcome.work),
            'repeats': outcome.timings[layout].repeats,
        })
    table.notes += [
        'GMAC: convolutions and matrix products of the form that runs, '
        'padding included; three times that for a training step',
        'bytes: as if every operation read and wrote its tensors once',
        'peak MB: above parameters and input, in the faster layout', *notes
    ]
    return table
