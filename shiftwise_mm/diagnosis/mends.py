"""Commands that mend an installation."""
from __future__ import annotations

import re
from importlib import metadata

from shiftwise_mm.stack import ONEDL, STOCK, Stack, find_stack

__all__ = ['LIBRARIES', 'distribution_of', 'install', 'mend_of',
           'requirement_of', 'requirements']

LIBRARIES = {
    'libGL.so.1': 'libgl1',
    'libglib-2.0.so.0': 'libglib2.0-0',
    'libgthread-2.0.so.0': 'libglib2.0-0',
    'libX11.so.6': 'libx11-6',
}
"""Debian packages of the shared libraries that OpenCV and Taichi link."""
# Distributions, where they are not called as what Python imports.
_DISTRIBUTIONS = {
    'PIL': 'pillow',
    'cv2': 'opencv-python',
    'pkg_resources': 'setuptools',
    'shiftwise_mm': 'shiftwise_mm',
    'yaml': 'PyYAML',
}
# mmseg imports both, and lists neither.
_TOGETHER = {'ftfy': ('ftfy', 'regex'), 'regex': ('ftfy', 'regex')}


def requirements() -> dict[str, str]:
    """What the installed package asks for, with this stack of OpenMMLab.

    That of all extras which are not the other stack's.

    Returns:
        dict[str, str]: A requirement such as ``'mmcv<2.2,>=2.1'``, by the
        name of the distribution. Empty if there is no metadata, as in a bare
        source tree.
    """
    try:
        lines = metadata.requires('shiftwise_mm') or []
    except metadata.PackageNotFoundError:
        return {}
    other = STOCK if _stack() is ONEDL else ONEDL
    found = {}
    for line in lines:
        text, _, marker = line.partition(';')
        extra = re.search(r'extra == .([\w-]+)', marker)
        if not extra or extra[1] not in other.extras.values():
            found[re.match(r'[\w.-]+', text)[0]] = text.strip()
    return found


def distribution_of(module: str) -> str:
    """What pip calls the package that Python imports as ``module``."""
    names = {**_DISTRIBUTIONS, **_stack().distributions}
    return names.get(module, module)


def _stack() -> Stack:
    try:
        return find_stack()
    except RuntimeError:  # both are installed, which is a finding of its own
        return STOCK


def requirement_of(distribution: str) -> str:
    """Name and allowed versions, quoted for a shell where need be."""
    text = requirements().get(distribution, distribution)
    return f"'{text}'" if re.search(r'[<>!=~\[]', text) else text


def install(module: str, *, again: bool = False) -> str:
    """The command that installs what Python imports as ``module``.

    Args:
        module (str): Its import name.
        again (bool): Whether it is there, but broken. Defaults to False.
    """
    if module == 'shiftwise_mm':
        return 'pip install --no-build-isolation --force-reinstall --no-deps .'
    name = distribution_of(module)
    force = '--force-reinstall --no-deps ' if again else ''
    if module == 'mmcv':
        # Its set-up imports what pip does not install for it.
        return (f'pip install {requirement_of("setuptools")} wheel ninja '
                'psutil packaging && MMCV_WITH_OPS=1 pip install '
                '--no-build-isolation --force-reinstall --no-deps '
                f'--no-binary {name} {requirement_of(name)}')
    wanted = ' '.join(map(requirement_of, _TOGETHER.get(name, (name, ))))
    return f'pip install {force}{wanted}'


def mend_of(error: BaseException, package: str) -> str:
    """The command that mends what an import or a call raised.

    Args:
        error (BaseException): What was raised.
        package (str): Import name of the package that it came from.
    """
    text = str(error)
    library = re.search(r'(lib\w[\w.+-]*\.so[\d.]*): cannot open', text)
    if library and library[1] in LIBRARIES:
        return f'apt-get install {LIBRARIES[library[1]]}'
    # Ops built for another torch, none at all, or a release that mmdet and
    # mmseg refuse.
    if re.search(r'mmcv[./]_ext|MMCV==', text):
        return install('mmcv')
    if isinstance(error, ModuleNotFoundError) and error.name:
        return install(error.name.partition('.')[0],
                       again='.' in error.name)
    return install(package, again=True)
