"""Predictions of a detector or segmentor on images, as pictures and JSON."""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.visualization.files import whole_file

from ._predictors import Predictor, load_predictor
from .inputs import BUILD_ERRORS, InputError, in_a_line
from .prediction_inputs import (
    FoundImage,
    UnreadableImage,
    find_images,
    read_image,
)

__all__ = ['Summary', 'predict']

_PICTURES, _PREDICTIONS, _SUMMARY = 'vis', 'preds', 'summary.json'


@dataclass
class Summary:
    """What was predicted, as in ``summary.json``.

    Attributes:
        task (str): ``'detection'`` or ``'segmentation'``.
        config (str): Path or name of the config.
        checkpoint (str): The checkpoint.
        classes (list[str]): Names of the labels.
        images (list[dict]): Of each image its ``file``, the ``prediction``
            and, if any, ``picture`` and ``label_map``, these relative to the
            folder of results, with its ``detections`` from the score
            threshold on, or the area ``shares`` of its classes.
        skipped (list[dict]): Of each unreadable image its ``file`` and the
            ``reason``.
    """

    task: str
    config: str
    checkpoint: str
    classes: list[str]
    images: list[dict] = field(default_factory=list)
    skipped: list[dict] = field(default_factory=list)


def predict(config: str | Config,
            checkpoint: str,
            inputs: Sequence[str | os.PathLike],
            out: str | os.PathLike,
            *,
            device: str | None = None,
            score_thr: float = .3,
            batch_size: int = 1,
            pictures: bool = True,
            progress: Callable[[int, int], None] | None = None) -> Summary:
    """Writes what a model of mmdet or mmseg finds in images.

    For an image ``a/b.jpg`` below a folder given: ``preds/a/b.json``, for a
    detector the dict of mmdet's ``DetInferencer`` (``labels``, ``scores``,
    ``bboxes`` as x1, y1, x2, y2 in pixels, ``masks`` as run-length codes),
    whatever the scores; for a segmentor the ``classes`` found, with pixels
    and share of the area, beside the label map ``preds/a/b.png``.
    ``vis/a/b.jpg`` is the image with the prediction painted on it, and
    ``summary.json`` lists everything. Each file appears whole or not at all.

    Args:
        config (str | Config): A config with ``model`` and
            ``test_dataloader``, its path, or ``'shiftwise_mm::...'``,
            ``'mmdet::...'``, ``'mmseg::...'``.
        checkpoint (str): A path or URL; loaded as weights and plain data.
        inputs (Sequence[str]): Images, folders and patterns, see
            :func:`~shiftwise_mm.engine.prediction_inputs.find_images`.
        out (str): Folder of the results; made if need be.
        device (str, optional): Such as ``'cuda:0'``. Defaults to an
            accelerator if there is one.
        score_thr (float): Detections from this score on are painted and
            counted. Defaults to 0.3.
        batch_size (int): Images that are read at a time, and go through the
            model together where their sizes allow it. Defaults to 1.
        pictures (bool): Whether to write ``vis``. Defaults to True.
        progress (Callable, optional): Called with the images done and those
            that there are, before the first and after each batch.

    Returns:
        Summary: Which images were predicted on, and which skipped because
        they cannot be read.

    Raises:
        InputError: If an argument cannot be used, or the model fails on an
            image that was read.
        TypeError, ValueError: If ``score_thr`` or ``batch_size`` is out of
            its range.
        OSError: If a result cannot be written.
    """
    if not 0 <= score_thr <= 1:
        raise ValueError(f'score_thr must be in [0, 1], got {score_thr}')
    check_int('batch_size', batch_size, 1)
    out = Path(out).expanduser()
    images = find_images(inputs, out)
    model = load_predictor(config, checkpoint, device)
    summary = Summary(
        model.task, str(config if isinstance(config, str)
                        else config.filename), str(checkpoint), model.classes)
    out.mkdir(parents=True, exist_ok=True)
    if progress:
        progress(0, len(images))
    for start in range(0, len(images), batch_size):
        batch = images[start:start + batch_size]
        _predict_batch(model, batch, summary, out, score_thr, pictures)
        if progress:
            progress(start + len(batch), len(images))
    _write_json(out / _SUMMARY, vars(summary), indent=1)
    return summary


def _predict_batch(model: Predictor, batch: Sequence[FoundImage],
                   summary: Summary, out: Path, score_thr: float,
                   pictures: bool) -> None:
    read, pixels = [], []
    for found in batch:
        try:
            pixels.append(read_image(found.path, **model.load))
            read.append(found)
        except (UnreadableImage, OSError) as error:
            reason = error.strerror or str(error) \
                if isinstance(error, OSError) else str(error)
            summary.skipped.append(dict(file=str(found.path), reason=reason))
    if not read:
        return
    try:
        samples = model(pixels)
    except InputError:
        raise
    except BUILD_ERRORS as error:
        files = ', '.join(str(found.path) for found in read)
        raise InputError(f'the model fails on {files}: '
                         f'{in_a_line(error)}') from error
    for found, image, sample in zip(read, pixels, samples, strict=True):
        summary.images.append(_write(
            model, found, image, sample, out, score_thr, pictures))


def _write(model: Predictor, found: FoundImage, image, sample, out: Path,
           score_thr: float, pictures: bool) -> dict:
    """Writes the files of an image; its entry of the summary."""
    entry = dict(file=str(found.path))

    def path(kind: str, folder: str, suffix: str) -> Path:
        name = Path(folder, found.name)
        name = name.with_name(name.name + suffix)
        entry[kind] = name.as_posix()
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        return out / name

    content = model.describe(sample)
    if model.task == 'detection':
        entry['detections'] = sum(
            score >= score_thr for score in content.get('scores', ()))
    else:
        entry['shares'] = {item['name']: item['share']
                           for item in content['classes']}
        with whole_file(path('label_map', _PREDICTIONS, '.png')) as part:
            model.save_labels(sample, part)
    _write_json(path('prediction', _PREDICTIONS, '.json'), content)
    if pictures:
        with whole_file(path('picture', _PICTURES, '.jpg')) as part:
            model.draw(image, sample, part, score_thr)
    return entry


def _write_json(path: Path, content: dict, indent: int | None = None) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=indent) + '\n', 'utf-8')
