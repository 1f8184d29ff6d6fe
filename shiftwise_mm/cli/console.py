"""The console command ``shiftwise``, which hands over to a sub-command."""
from __future__ import annotations

import difflib
import os
import select
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from shiftwise_mm import register
from shiftwise_mm.version import __version__

__all__ = ['SUB_COMMANDS', 'help_text', 'main']

SUB_COMMANDS = {
    'demo': ('demo', 'train and test a small detector, write pictures'),
    'demo-seg': ('demo_seg', 'the same with a small segmentor'),
    'train': ('train', 'train by a config'),
    'test': ('test', 'test a checkpoint by a config'),
    'predict': ('predict', 'predict on images, folders and globs'),
    'swap': ('swap_backbone', 'put another backbone into configs'),
    'check-swaps': ('check_swaps',
                    'swap the backbone of all configs of mmdet and mmseg'),
    'list-models': ('list_models', 'the backbones, their size and cost'),
    'flops': ('get_flops', 'parameters and multiply-adds of a config'),
    'inspect': ('inspect_checkpoint', 'what a checkpoint holds'),
    'convert': ('convert_checkpoint', 'published weights in our names'),
    'deploy': ('deploy', 'checkpoint and config of the deploy form'),
    'export-onnx': ('export_onnx', 'a model as ONNX'),
    'sparsity-report': ('sparsity_report',
                        'which small kernels a checkpoint keeps'),
    'compare-sparsity': ('compare_sparsity',
                         'train densely and sparsely, and compare'),
    'plot-shifts': ('plot_shifts', 'where the taps of an operator land'),
    'plot-erf': ('plot_erf', 'effective receptive fields of backbones'),
    'plot-curves': ('plot_curves', 'curves of trainings from their logs'),
    'benchmark': ('benchmark', 'time and memory beside all peers'),
    'doctor': ('doctor', 'what works in this environment, and what not'),
}
"""Module in this package, and what it does in a line, by sub-command."""
# Their threads wait asleep: torch's would else keep the cores from Taichi, and
# from whatever else runs on the machine. Read when torch is imported.
_ASLEEP = ('demo', 'demo-seg', 'compare-sparsity')
_DOCTOR = 'doctor'  # has to start whatever is broken


def help_text() -> str:
    """Usage and the sub-commands, in the order of the table."""
    width = max(map(len, SUB_COMMANDS))
    return '\n'.join([
        'usage: shiftwise SUB-COMMAND [options]', '',
        *(f'  {name:<{width}}  {line}'
          for name, (_, line) in SUB_COMMANDS.items()), '',
        'shiftwise SUB-COMMAND --help tells the options of one.'])


def main(argv: Sequence[str] | None = None) -> int | None:
    """Runs ``shiftwise ARGV``.

    Args:
        argv (Sequence[str], optional): Defaults to what the process was
            given.

    Returns:
        int, optional: The exit code: that of the sub-command, 0 after the
        help and the version, 2 if there is no such sub-command, 141 if the
        reader of the output has gone (``| head``), as of other programs.
        Most sub-commands raise ``SystemExit`` where they fail.
    """
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _has_lost_its_reader(sys.stdout):
            raise
        # Python flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _has_lost_its_reader(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _run(argv: Sequence[str] | None) -> int | None:
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help', 'help'):
        print(help_text())
        return 0
    if name in ('-V', '--version'):
        print(f'shiftwise_mm {__version__}')
        return 0
    if name not in SUB_COMMANDS:
        near = difflib.get_close_matches(name, SUB_COMMANDS, n=1)
        hint = f'did you mean {near[0]}? ' if near else ''
        print(f'shiftwise: there is no sub-command {name!r}; {hint}'
              'shiftwise --help lists all', file=sys.stderr)
        return 2
    if name in _ASLEEP and 'torch' not in sys.modules:
        os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    if name != _DOCTOR:
        try:
            register()
        except ModuleNotFoundError as error:
            print(f'shiftwise: {error}', file=sys.stderr)
            return 2
    module = import_module(f'{__package__}.{SUB_COMMANDS[name][0]}')
    # What argparse shows in the usage of the sub-command.
    program, sys.argv[0] = sys.argv[0], f'shiftwise {name}'
    try:
        return module.main(rest)
    finally:
        sys.argv[0] = program
