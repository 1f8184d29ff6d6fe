"""What the tests share: tolerances, comparisons, reference material."""
from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from processes import run_fresh

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / 'shared'

# One tolerance a dtype, the same everywhere: relative to the largest value.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.float16: 2e-3,
    torch.bfloat16: 2e-2,
}


def pretend_cpu(monkeypatch, name: str) -> None:
    """Lets rules take this CPU for another one.

    Args:
        name (str): ``'AVX2'``, ``'AVX512'`` as Intel has it,
            ``'Zen 4'``, ``'Zen 5'``, or ``'DEFAULT'`` for another
            architecture.
    """
    from shiftwise_mm.kernels import capability
    monkeypatch.setattr(capability, 'VECTORS',
                        'AVX512' if name.startswith('Zen') else name)
    vendor, family = {'AVX512': ('GenuineIntel', 6),
                      'Zen 4': ('AuthenticAMD', 25),
                      'Zen 5': ('AuthenticAMD', 26)}.get(name, ('', 0))
    monkeypatch.setattr(capability, 'VENDOR', vendor)
    monkeypatch.setattr(capability, 'FAMILY', family)


def record_launches(monkeypatch, ops, name: str) -> list[tuple]:
    """Lets ``ops`` take its kernel for any size, as with AVX2.

    Args:
        ops (module): Of an operator with ``kernels`` and ``_LEAST``.
        name (str): Of the kernel's function.

    Returns:
        list[tuple]: The shapes that it is given from now on.
    """
    seen = []
    run = getattr(ops.kernels, name)

    def spy(x, *arguments):
        seen.append(tuple(x.shape))
        return run(x, *arguments)

    monkeypatch.setattr(ops.kernels, name, spy)
    monkeypatch.setattr(ops, '_LEAST', 1)
    pretend_cpu(monkeypatch, 'AVX2')
    return seen


def modules_called(function) -> set[torch.nn.Module]:
    """Those that a hook of all modules hears of while ``function`` runs."""
    heard = set()
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: heard.add(module))
    try:
        function()
    finally:
        handle.remove()
    return heard


def assert_near(actual: torch.Tensor, expected: torch.Tensor,
                tolerance: float | None = None) -> None:
    """Fails where the largest error exceeds the share of the largest value."""
    assert actual.shape == expected.shape
    if not actual.numel():
        return
    if tolerance is None:
        tolerance = TOLERANCE[actual.dtype]
    assert torch.isfinite(actual).all()
    error = (actual.double() - expected.double()).abs().max().item()
    scale = expected.double().abs().max().item()
    assert error <= tolerance * max(scale, 1e-30), (
        f'error {error:.3g}, allowed {tolerance:g} of {scale:.3g}')


def shared_path(*parts: str) -> Path:
    """A file beside the project; the test is skipped where it is not."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f'reference material is not there: {path}')
    return path


def randomise_norms(module: torch.nn.Module, seed: int = 0) -> None:
    """Gives batch-norms statistics that a wrong folding cannot hide behind."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, torch.nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in ((norm.running_mean, -1, 1),
                                      (norm.running_var, .3, 2),
                                      (norm.weight, .5, 1.5),
                                      (norm.bias, -1, 1)):
                tensor.data.uniform_(low, high, generator=generator)


def make_image_folder(root: Path, classes: dict[str, int],
                      seed: int = 0) -> list[tuple[Path, int]]:
    """Noisy images of odd sizes, each class with a tint of its own.

    Args:
        root: Where a folder a class is made.
        classes: Names, and how many images each gets.

    Returns:
        Path and label of each image, labels by the order of the names.
    """
    rng, made = np.random.default_rng(seed), []
    for label, name in enumerate(sorted(classes)):
        (root / name).mkdir(parents=True)
        tint = rng.integers(0, 256, 3)
        for i in range(classes[name]):
            height, width = rng.integers(180, 400, 2)
            grid = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3))
            pixels = (grid + tint) / 2
            path = root / name / f'{i}.jpg'
            Image.fromarray(pixels.astype(np.uint8)).resize(
                (int(width), int(height)), Image.Resampling.BICUBIC).save(path)
            made.append((path, label))
    return made


def copy_as_ade20k(shapes: Path, root: Path) -> Path:
    """Images of shapes in the layout of ADE20K, with names of the classes."""
    from shiftwise_mm.datasets import SHAPE_CLASSES
    for split in ('train', 'val'):
        shutil.copytree(shapes / split, root / 'images' / split)
        shutil.copytree(shapes / 'semantic' / split,
                        root / 'annotations' / split)
    (root / 'classes.txt').write_text('\n'.join(('none', *SHAPE_CLASSES)))
    return root


def published_preprocessing(path: Path, size: int = 256,
                            crop: int = 224) -> torch.Tensor:
    """ImageNet's evaluation as published, by Pillow alone: (3, 224, 224)."""
    image = Image.open(path).convert('RGB')
    width, height = image.size
    if width <= height:
        shape = size, int(size * height / width)
    else:
        shape = int(size * width / height), size
    image = image.resize(shape, Image.Resampling.BICUBIC)
    left, top = (int(round((side - crop) / 2.)) for side in shape)
    image = image.crop((left, top, left + crop, top + crop))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    mean = torch.tensor([.485, .456, .406]).view(3, 1, 1)
    std = torch.tensor([.229, .224, .225]).view(3, 1, 1)
    return (pixels - mean) / std


def run_python(code: str, cwd: str | Path = '.', stderr: bool = False,
               run: Callable = run_fresh, **env: str) -> list[str]:
    """Runs ``code`` in a fresh process; returns the lines that it printed.

    With ``stderr=True`` those on stderr as well, in the order of printing;
    with ``run=run_forked`` in a fork.
    """
    done = run('-c', textwrap.dedent(code), cwd=cwd, merge=stderr,
               env={**os.environ, **env})
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout.strip().splitlines()


def record_forms(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The forms that are taken from here on; none of them computes."""
    from shiftwise_mm.ops import forms
    taken = []
    monkeypatch.setattr(forms, '_FORMS', tuple(
        (name, reason, worth,
         lambda *args, name=name: taken.append(name) or [])
        for name, reason, worth, _ in forms._FORMS))
    return taken
