"""What mmengine and Taichi compute over and over, computed once a process.

Its results depend on nothing but what is given and on files that no test
changes: those of the installed libraries.
"""
from __future__ import annotations

from textwrap import TextWrapper

from mmengine.config import config, utils
from yapf.yapflib import yapf_api


def remember_all() -> None:
    """Before any of them is used."""
    remember_formatted_code()
    remember_metafiles()
    remember_wrapped_lines()


def remember_formatted_code() -> None:
    """mmengine formats the same config five times a run."""
    format_code, known = yapf_api.FormatCode, {}

    def remembering(text, **options):
        key = text, repr(options)
        if key not in known:
            known[key] = format_code(text, **options)
        return known[key]

    yapf_api.FormatCode = remembering  # where mmengine's fork finds it
    if hasattr(config, 'FormatCode'):
        config.FormatCode = remembering


def remember_metafiles() -> None:
    """mmengine reads all of a library's for each base like ``mmseg::``."""
    if not hasattr(utils, 'load'):  # a fork may read them otherwise
        return
    load, known = utils.load, {}

    def remembering(file, *args, **options):
        if args or options or '.mim' not in str(file):
            return load(file, *args, **options)
        if file not in known:
            known[file] = load(file)
        return known[file]

    utils.load = remembering


def remember_wrapped_lines() -> None:
    """Taichi wraps a line of source for each node of the kernels in it.

    That is a third of what it takes to compile one of many taps.
    """
    wrap, known = TextWrapper.wrap, {}

    def remembering(self, text):
        key = type(self), text, *vars(self).values()
        if key not in known:
            known[key] = wrap(self, text)
        return known[key].copy()

    TextWrapper.wrap = remembering
