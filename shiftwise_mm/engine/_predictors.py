"""mmdet's and mmseg's inferencers, fed with images that were read before."""
from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from shiftwise_mm.checkpoint.container import open_container
from shiftwise_mm.checkpoint.convert import first_few
from shiftwise_mm.checkpoint.loading import find_backbones, load_file
from shiftwise_mm.swap.names import SwapError
from shiftwise_mm.swap.text import read_config

from .detections import surest_last
from .inputs import BUILD_ERRORS, InputError, check_checkpoint, in_a_line

__all__ = ['Predictor', 'load_predictor']


def load_predictor(config: str | Config, checkpoint: str,
                   device: str | None = None) -> Predictor:
    """A detector or segmentor with its weights, ready to predict.

    Args:
        config (str | Config): A config, its path, or ``'mmdet::...'``,
            ``'mmseg::...'``, ``'shiftwise_mm::...'``.
        checkpoint (str): A path or URL; loaded as weights and plain data.
        device (str, optional): Such as ``'cuda:0'``. Defaults to an
            accelerator if there is one.

    Raises:
        InputError: If one of them cannot be used; the message is one line.
    """
    name = config if isinstance(config, str) else config.filename
    cfg = _read(config)
    predictor = _PREDICTORS.get(_scope(cfg))
    if predictor is None:
        raise InputError(
            f'{name} is of scope {_scope(cfg)!r}; predictions are made by '
            'detectors (mmdet) and segmentors (mmseg). Classifiers would need '
            "mmpretrain's ImageClassificationInferencer, which does not run "
            'beside this torch')
    check_checkpoint(checkpoint)
    _check_device(device)
    try:
        content = load_file(checkpoint)
        weights = open_container(content).state_dict
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f'checkpoint {checkpoint} cannot be loaded: '
                         f'{in_a_line(error)}') from error
    meta = content.get('meta')
    try:
        with warnings.catch_warnings():
            # Of a checkpoint without classes: we look further than the
            # inferencers do.
            warnings.simplefilter('ignore')
            return predictor(cfg, checkpoint,
                             meta if isinstance(meta, Mapping) else {},
                             weights, device)
    except InputError:
        raise
    except BUILD_ERRORS as error:
        raise InputError(f'{name} with {checkpoint}: '
                         f'{in_a_line(error)}') from error


class Predictor(ABC):
    """An inferencer of OpenMMLab, its classes and its way of writing.

    Attributes:
        task (str): ``'detection'`` or ``'segmentation'``.
        load (dict): Arguments of
            :func:`~shiftwise_mm.engine.prediction_inputs.read_image` by which
            the model's own pipeline would load.
        classes (list[str]): Names of the labels.
    """

    task: str
    scope: str
    visualizer: str

    def __init__(self, cfg: Config, checkpoint: str, meta: Mapping,
                 weights: Mapping, device: str | None) -> None:
        dataset = _innermost(cfg.test_dataloader.dataset)
        cfg.test_dataloader.dataset = dataset
        loader = _loader(dataset)
        self.load = dict(flag=loader.get('color_type', 'color'),
                         backend=loader.get('imdecode_backend'))
        # Those of the config may write elsewhere, or to a server.
        cfg.visualizer = ConfigDict(type=self.visualizer, name='predict')
        with DefaultScope.overwrite_default_scope(self.scope):
            self._known = _dataset_meta(meta, dataset)
            self.inferencer = self._build(
                dict(model=cfg, weights=checkpoint, device=device,
                     scope=self.scope))
        self.inferencer.show_progress = False
        _check_fit(self.inferencer.model, weights, checkpoint)
        self.classes = self._known['classes'] or _numbers(
            self.inferencer.model)
        self._prepare()

    @abstractmethod
    def _build(self, options: dict):
        """The inferencer."""

    @abstractmethod
    def _prepare(self) -> None:
        """Gives classes and colours to the visualizer."""

    @abstractmethod
    def batches(self, images: Sequence[np.ndarray]) -> list[list[int]]:
        """Which of the images may go through the model together."""

    def __call__(self, images: Sequence[np.ndarray]) -> list:
        """Data samples with predictions, one for each image.

        Args:
            images (Sequence[np.ndarray]): As ``read_image`` gives them.
        """
        samples: list = [None] * len(images)
        with DefaultScope.overwrite_default_scope(self.scope):
            for indices in self.batches(images):
                found = self._predict([images[i] for i in indices])
                for i, sample in zip(indices, found, strict=True):
                    samples[i] = sample
        return samples

    @abstractmethod
    def _predict(self, images: list[np.ndarray]) -> list:
        """Data samples of a batch."""

    def draw(self, image: np.ndarray, sample, path: Path,
             score_thr: float) -> None:
        """Writes an image with its predictions painted on it."""
        if image.ndim == 2:
            image = np.repeat(image[..., None], 3, 2)
        options = dict(pred_score_thr=score_thr) \
            if self.task == 'detection' else {}
        self.inferencer.visualizer.add_datasample(
            path.stem, np.ascontiguousarray(image[..., 2::-1]),
            surest_last(sample), draw_gt=False, out_file=str(path),
            **options)

    @abstractmethod
    def describe(self, sample) -> dict:
        """What is predicted, as plain data for JSON."""


class _Detector(Predictor):
    task, scope = 'detection', 'mmdet'
    visualizer = 'mmdet.DetLocalVisualizer'

    def _build(self, options: dict):
        from mmdet.apis import DetInferencer
        # With a palette it does not build the data set to look for one.
        return DetInferencer(
            palette=self._known['palette'] or 'random', show_progress=False,
            **options)

    def _prepare(self) -> None:
        meta = dict(self.inferencer.model.dataset_meta,
                    classes=tuple(self.classes))
        palette = meta['palette']
        if not isinstance(palette, str) and len(palette) < len(self.classes):
            meta['palette'] = 'random'
        self.inferencer.model.dataset_meta = meta
        self.inferencer.visualizer.dataset_meta = meta

    def batches(self, images):
        return [list(range(len(images)))]  # padded to the largest

    def _predict(self, images):
        return self.inferencer(
            images, batch_size=len(images), no_save_vis=True,
            return_datasamples=True)['predictions']

    def describe(self, sample) -> dict:
        if 'pred_panoptic_seg' in sample:
            raise InputError('the model predicts a panoptic segmentation, '
                             'which is not written; boxes and masks are')
        return self.inferencer.pred2dict(sample)


class _Segmentor(Predictor):
    task, scope = 'segmentation', 'mmseg'
    visualizer = 'mmseg.SegLocalVisualizer'

    def _build(self, options: dict):
        from mmseg.apis import MMSegInferencer
        return MMSegInferencer(**options)

    def _prepare(self) -> None:
        palette = self._known['palette']
        if palette is None or isinstance(palette, str) \
                or len(palette) != len(self.classes):
            # mmseg would take that of Cityscapes, whatever the classes.
            palette = np.random.RandomState(42).randint(
                0, 256, (len(self.classes), 3)).tolist()
        self.inferencer.visualizer.set_dataset_meta(self.classes, palette)
        self.inferencer.visualizer.alpha = .6  # of the colours

    def batches(self, images):
        # mmseg stacks without padding: images of one size only.
        by_size: dict[tuple, list[int]] = {}
        for i, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(i)
        return list(by_size.values())

    def _predict(self, images):
        found = self.inferencer(images, batch_size=len(images),
                                return_datasamples=True)
        found = found if isinstance(found, list) else [found]
        for sample in found:
            if 'pred_sem_seg' not in sample:
                raise InputError('the model predicts no label map, but '
                                 f'{", ".join(sample.keys()) or "nothing"}')
        return found

    @staticmethod
    def labels(sample) -> np.ndarray:
        """Predicted label of each pixel, int64 (H, W)."""
        return sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64)

    def save_labels(self, sample, path: Path) -> None:
        """Writes the label map: one channel, the label as its value.

        8 bits, or 16 with more than 256 classes.
        """
        dtype = np.uint8 if len(self.classes) <= 256 else np.uint16
        Image.fromarray(self.labels(sample).astype(dtype)).save(path)

    def describe(self, sample) -> dict:
        labels = self.labels(sample)
        counts = np.bincount(labels.reshape(-1)).tolist()
        return dict(
            height=labels.shape[0], width=labels.shape[1],
            classes=[dict(label=label, name=self.name_of(label),
                          pixels=pixels, share=pixels / labels.size)
                     for label, pixels in enumerate(counts) if pixels])

    def name_of(self, label: int) -> str:
        return self.classes[label] if label < len(self.classes) \
            else str(label)


_PREDICTORS = dict(mmdet=_Detector, mmseg=_Segmentor)


def _read(config: str | Config) -> Config:
    if isinstance(config, Config):
        cfg, name = copy.deepcopy(config), config.filename
    else:
        name = config
        try:
            cfg = read_config(config)
        except SwapError as error:
            raise InputError(f'{config}: {error}') from error
    for key in 'model', 'test_dataloader':
        if cfg.get(key) is None:
            raise InputError(f'{name} has no {key}')
    return cfg


def _scope(cfg: Config) -> str:
    """``default_scope``, or where the type of the model says it is from."""
    kind = str(cfg.model.get('type'))
    prefix = kind.rpartition('.')[0]
    return prefix or cfg.get('default_scope') or 'mmengine'


def _check_device(device: str | None) -> None:
    if device is None:
        return
    try:
        torch.empty(1, device=device)
    # Without CUDA torch raises an AssertionError.
    except (RuntimeError, AssertionError) as error:
        raise InputError(f'device {device!r} cannot be used: '
                         f'{in_a_line(error)}') from error


def _innermost(dataset: ConfigDict) -> ConfigDict:
    """The data set inside wrappers, which has the pipeline."""
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset['dataset'] if 'dataset' in dataset \
            else dataset['datasets'][0]
    return dataset


def _loader(dataset: ConfigDict) -> ConfigDict:
    """How the pipeline loads images, under the name that inferencers seek."""
    for step in dataset.get('pipeline') or ():
        if str(step.get('type')).rpartition('.')[2] == 'LoadImageFromFile':
            step.type = 'LoadImageFromFile'
            return step
    raise InputError('test_dataloader.dataset.pipeline has no '
                     'LoadImageFromFile, so it takes no image')


def _dataset_meta(meta: Mapping, dataset: ConfigDict) -> dict:
    """Classes and palette: of the checkpoint, else of the config's data set.

    Each None if neither knows.
    """
    own = meta.get('dataset_meta')
    kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) \
        else dataset.type
    sources = [{str(key).lower(): value for key, value in source.items()}
               for source in (
                   own if isinstance(own, Mapping) else {},
                   {key: meta[key] for key in ('CLASSES', 'PALETTE')
                    if key in meta},
                   dataset.get('metainfo') or {},
                   getattr(kind, 'METAINFO', {}))]
    # The colours of other classes would be none of theirs.
    source = next((s for s in sources if not isinstance(
        s.get('classes'), (str, type(None)))), {})
    classes = source.get('classes')
    return dict(classes=None if classes is None else list(map(str, classes)),
                palette=source.get('palette'))


def _numbers(model: nn.Module) -> list[str]:
    """Names for the labels of a model whose classes nobody knows."""
    count = max((module.num_classes for module in model.modules()
                 if isinstance(getattr(module, 'num_classes', None), int)),
                default=0)
    return list(map(str, range(count)))


def _check_fit(model: nn.Module, weights: Mapping, checkpoint: str) -> None:
    """An error if weights of the model are not in the checkpoint.

    mmengine only logs them. Backbones of ours check their own, under
    published names as well; auxiliary heads do not predict.
    """
    apart = tuple(prefix for prefix, _ in find_backbones(model)) \
        + ('auxiliary_head.', )
    shapes = {name.removeprefix('module.'): tuple(value.shape)
              for name, value in weights.items() if hasattr(value, 'shape')}
    wrong = [
        f'{name} {tuple(value.shape)} (in the file: '
        f'{shapes.get(name, "nothing")})'
        for name, value in model.named_parameters()
        if not name.startswith(apart)
        and shapes.get(name) != tuple(value.shape)]
    if wrong:
        raise InputError(f'checkpoint {checkpoint} is of another model: '
                         f'{first_few(wrong)}')
