"""Peak memory of a training step, in a process of its own.

What other networks leave in the heap is counted with it otherwise: some ten
percent, other ones in each run.
"""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
import torch.nn as nn
from torch import Tensor

from .memory import peak_memory
from .networks import Entry, family, twin

__all__ = ['LAYOUTS', 'loss_of', 'step_memory', 'training_step']

LAYOUTS = {'contiguous': torch.contiguous_format,
           'channels_last': torch.channels_last}
_REPEATS = 3


def loss_of(outs: Sequence[Tensor]) -> Tensor:
    """A sum with weights that differ from place to place."""
    return sum((out * torch.linspace(-1, 1, out.shape[-1],
                                     device=out.device)).mean()
               for out in outs)


def training_step(network: nn.Module,
                  image: Tensor) -> Callable[[], object]:
    """A forward and a backward pass, for the gradients of all parameters."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    return lambda: torch.autograd.grad(loss_of(network(image)), parameters,
                                       allow_unused=True)


def step_memory(entry: Entry, *, size: Sequence[int], batch: int, layout: str,
                options: dict) -> int | None:
    """Bytes at the peak above parameters and input, the least of three.

    Args:
        entry (Entry): The network.
        size (Sequence[int]): ``(H, W)``.
        batch (int): Images.
        layout (str): Key of :data:`LAYOUTS`.
        options (dict): Arguments of the network.

    Returns:
        int | None: None where :func:`~.memory.peak_memory` has no figure.

    Raises:
        RuntimeError: If the process fails, with the end of what it wrote.
    """
    task = dict(entry=asdict(entry), size=list(size), batch=batch,
                layout=layout, options=options,
                threads=torch.get_num_threads())
    done = subprocess.run(
        [sys.executable, '-c', f'from {__name__} import _main; _main()'],
        input=json.dumps(task), capture_output=True, text=True,
        cwd=tempfile.gettempdir())  # a source tree would hide the package
    if done.returncode:
        raise RuntimeError(f'no memory of {entry.name}: '
                           f'{done.stderr.strip()[-500:]}')
    return json.loads(done.stdout.splitlines()[-1])


def _main() -> None:
    task = json.load(sys.stdin)
    torch.set_num_threads(task['threads'])
    device, entry = torch.device('cpu'), Entry(**task['entry'])
    network = entry.make(family(entry.family, device, **task['options']))
    order = LAYOUTS[task['layout']]
    network = twin(network, order)
    network.train()  # mmdet's returns nothing
    image = torch.randn(task['batch'], 3, *task['size']).contiguous(
        memory_format=order)
    step = training_step(network, image)
    step()
    peaks = [peak_memory(step, device) for _ in range(_REPEATS)]
    print(json.dumps(min(peaks) if None not in peaks else None))
