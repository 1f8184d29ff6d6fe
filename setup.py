"""Builds shiftwise_mm, its configs included.

mmengine resolves ``_base_ = 'shiftwise_mm::...'`` from ``.mim/configs`` and
``.mim/model-index.yml`` inside the installed package.
"""
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


# OpenMMLab's own releases, and the maintained forks of them. An environment
# holds either: they are imported by the same names.
MMENGINE = [
    'mmengine>=0.10.7,<1',  # registry, runner, configs
    'setuptools<81',  # it reads configs of packages by pkg_resources
]
MMCV = [*MMENGINE, 'mmcv>=2.1,<2.2']  # mmdet and mmseg refuse 2.2
STOCK = {
    'mmengine': MMENGINE,
    'detection': [*MMCV, 'mmdet>=3.3,<3.4'],
    # ftfy and regex are imported by mmsegmentation, which lists neither.
    'segmentation': [*MMCV, 'mmsegmentation>=1.2.2,<1.3', 'ftfy', 'regex'],
}
ONEDL_MMENGINE = [
    'onedl-mmengine>=0.10.12,<1',
    'opencv-python',  # it imports cv2, and does not list it
]
ONEDL_MMCV = [*ONEDL_MMENGINE, 'onedl-mmcv>=2.3.6,<2.4']
ONEDL = {
    'onedl': ONEDL_MMENGINE,
    'onedl-detection': [*ONEDL_MMCV, 'onedl-mmdetection>=3.5.1,<3.6'],
    'onedl-segmentation': [*ONEDL_MMCV, 'onedl-mmsegmentation>=1.4.2,<1.5'],
}


class BuildWithConfigs(build_py):
    """``build_py`` that adds ``configs/`` and the model index."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, 'shiftwise_mm', '.mim')
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(
            ROOT / 'configs', target / 'configs',
            ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy(ROOT / 'model-index.yml', target)


def version() -> str:
    text = (ROOT / 'shiftwise_mm' / 'version.py').read_text()
    return re.search(r"__version__ = '(.+)'", text).group(1)


setup(
    name='shiftwise_mm',
    version=version(),
    description='Shift-wise large-kernel backbones for MMDetection and '
    'MMSegmentation',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=[
        *find_packages(include=['shiftwise_mm', 'shiftwise_mm.*']),
        'shiftwise_mm.kernels',
    ],
    # A top-level package called `kernels` would be anyone's.
    package_dir={'shiftwise_mm.kernels': 'kernels'},
    package_data={'shiftwise_mm.kernels': ['*.bc', '*.ll']},
    # As far as `make test-pythons` went to the end (docs/install.md).
    python_requires='>=3.11,!=3.12.*,<3.14',
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: POSIX :: Linux',
        *(f'Programming Language :: Python :: 3.{minor}'
          for minor in (11, 13)),
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    # mmengine is needed too, but is in the extras: there are two
    # distributions of it that overwrite each other (docs/install.md).
    install_requires=[
        'torch>=2.6',  # safe loading of checkpoints by default
        'numpy>=1.26',  # the published choice of ghost channels
    ],
    extras_require={
        **STOCK, **ONEDL,
        'taichi': ['taichi>=1.7.4,<1.8'],  # the kernels
        # tools/export_onnx.py writes, and checks by running.
        'export': ['onnx>=1.16,<2', 'onnxruntime>=1.18,<2'],
        # Draws the pictures, and runs what the pages say.
        'docs': ['matplotlib>=3.7', 'pytest>=8'],
    },
    entry_points={
        'console_scripts': ['shiftwise = shiftwise_mm.cli:main'],
    },
    cmdclass={'build_py': BuildWithConfigs},
    zip_safe=False,
)
