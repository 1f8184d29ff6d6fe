"""The swap of many configs, each tried in a process of its own."""
from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path

import torch
from mmengine.config import Config

from shiftwise_mm.config_paths import configs_of

from .check import SIZES, CheckReport, check_swap
from .names import SwapError, backbone_config
from .original import MEASURED, OriginalError
from .plan import Swap, plan_swap
from .text import read_config, write_short_config

__all__ = ['OUTCOMES', 'list_configs', 'read_rows', 'sweep', 'try_swap']

OUTCOMES = {
    'checked': 'swapped and checked',
    'built': 'swapped, built only',
    'refused': 'refused with a reason',
    'original': 'the original does not build here',
    'failed': 'failed',
}
"""What can come of a config, with the heading in the report."""

_IRRELEVANT = ('init_cfg', 'pretrained', '_scope_', 'mean', 'std',
               'bgr_to_rgb', 'num_classes')


def list_configs(package: str) -> list[str]:
    """All configs inside an installed package, as ``'mmdet::...'``."""
    root = configs_of(package)
    return [f'{package}::{path.relative_to(root).as_posix()}'
            for path in sorted(root.rglob('*.py'))
            if '_base_' not in path.parts]


def try_swap(config: str, name: str, known: Mapping[str, dict],
             sizes: Sequence[int] = SIZES) -> dict:
    """Swaps, writes the short config, reads it again, and checks it.

    Args:
        config (str): Path or ``'mmdet::...'``.
        name (str): Name of the backbone.
        known (Mapping): Rows of earlier configs by ``model``: a model that
            was checked is not checked again.
        sizes (Sequence[int]): See :func:`check_swap`.

    Returns:
        dict: ``config``, ``outcome`` (a key of :data:`OUTCOMES`), ``reason``;
        if it was swapped ``model``, a hash of what was checked: the swapped
        model without the weights it starts from, the colours it was
        trained with and the number of classes, and the expected levels;
        ``like``, the config whose check was taken over.
    """
    row = dict(config=config, outcome='checked', reason='', like='')
    try:
        cfg = read_config(config)
    except SwapError as error:
        return dict(row, outcome='original', reason=str(error))
    try:
        swap = plan_swap(cfg, name)
    except OriginalError as error:
        return dict(row, outcome='original', reason=str(error))
    except SwapError as error:
        return dict(row, outcome='refused', reason=str(error))
    swapped = swap.apply(cfg)
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_short_config(cfg, swap, config, folder)
        except SwapError as error:
            return dict(row, outcome='failed', reason=str(error))
    row['model'] = _fingerprint(swapped, swap)
    if row['model'] in known:
        like = known[row['model']]
        return dict(row, outcome=like['outcome'], reason=like['reason'],
                    like=like['like'] or like['config'])
    report = check_swap(swapped, swap, sizes=sizes)
    if not report.passed:
        row.update(_explain(report, check_swap(cfg, sizes=sizes)))
    return row


def _fingerprint(swapped: Config, swap: Swap) -> str:
    facts = [_essence(swapped.model.to_dict()), swap.scope,
             _essence(swapped.get('data_preprocessor') or {}),
             [(level.channels, level.stride) for level in swap.levels]]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _essence(part):
    if isinstance(part, Mapping):
        return {key: _essence(value) for key, value in part.items()
                if key not in _IRRELEVANT}
    if isinstance(part, (list, tuple)):
        return [_essence(item) for item in part]
    return part


def _explain(report: CheckReport, original: CheckReport) -> dict:
    """Whose fault it is: the original goes through the same check."""
    if original.stage == 'build':
        return dict(outcome='original', reason=original.problem)
    if original.passed or report.stage == 'build':
        return dict(outcome='failed',
                    reason=f'{report.stage}: {report.problem}')
    return dict(outcome='built',
                reason='the original fails in the same check as well: '
                       f'{original.stage}: {original.problem}')


def read_rows(path: str | os.PathLike) -> list[dict]:
    """Rows that :func:`sweep` wrote; none if there is no such file."""
    path = Path(path)
    if not path.exists():
        return []
    with path.open(encoding='utf-8') as file:
        lines = [line for line in file if line.endswith('\n')]
    return [json.loads(line) for line in lines]


def sweep(configs: Iterable[str], name: str, work_dir: str | os.PathLike, *,
          jobs: int = 1, seconds: float = 900,
          memory: float = 12) -> list[dict]:
    """Tries all configs; continues where an earlier call was stopped.

    Args:
        configs (Iterable[str]): See :func:`try_swap`.
        name (str): Name of the backbone.
        work_dir (str): Where ``NAME.jsonl``, a row a config, and ``NAME.log``
            with what the models print are kept.
        jobs (int): Processes at a time. Defaults to 1.
        seconds (float): Limit of time for one config. Defaults to 900.
        memory (float): Limit of address space for one, in GB. Defaults to 12.

    Returns:
        list[dict]: The rows of ``configs``, in their order.

    Raises:
        SwapError: If there is no such backbone.
    """
    backbone_config(name)
    work_dir = Path(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / f'{name}.jsonl'
    rows = {row['config']: row for row in read_rows(path)}
    # Without half a line, which the next one would be appended to.
    path.write_text(''.join(f'{json.dumps(row)}\n' for row in rows.values()),
                    encoding='utf-8')
    configs = list(configs)
    waiting = [config for config in configs if config not in rows]
    known = {row['model']: row for row in rows.values() if 'model' in row}
    running: dict[Connection, tuple] = {}
    context = _server()
    while waiting or running:
        while waiting and len(running) < jobs:
            config = waiting.pop(0)
            running.update([_start(context, config, name, known, memory,
                                   work_dir / f'{name}.log')])
        for row in _finished(running, seconds):
            rows[row['config']] = row
            if 'model' in row:
                known.setdefault(row['model'], row)
            with path.open('a', encoding='utf-8') as file:
                file.write(json.dumps(row) + '\n')
    return [rows[config] for config in configs]


def _server() -> BaseContext:
    """Processes come from a server that has imported what they need.

    Not from this process: a fork of one that has computed with several
    threads waits forever for them.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__, 'mmdet.models', 'mmseg.models'])
    return context


def _start(context: BaseContext, config: str, name: str, known: dict,
           memory: float, log: Path) -> tuple[Connection, tuple]:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_child, daemon=True,
        args=(theirs, os.getcwd(), config, name, known, MEASURED, memory, log))
    process.start()
    theirs.close()
    return ours, (config, process, time.monotonic())


def _child(connection: Connection, folder: str, config: str, name: str,
           known: dict, measured: dict, memory: float, log: Path) -> None:
    os.chdir(folder)  # the server has one of its own
    MEASURED.update(measured)
    torch.set_flush_denormal(True)  # seesaw's gradients would take minutes
    limit = int(memory * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with log.open('a') as file:
        for output in (1, 2):
            os.dup2(file.fileno(), output)
    package, inside, _ = config.partition('::')
    if inside:  # some name a teacher's config as seen from a checkout
        os.chdir(configs_of(package).parent)
    try:
        row = try_swap(config, name, known)
    # What went wrong is the result.
    except Exception as error:
        row = dict(config=config, outcome='failed', like='',
                   reason=f'{type(error).__name__}: {error}'[:300])
    connection.send((row, MEASURED))
    connection.close()


def _finished(running: dict, seconds: float) -> Iterable[dict]:
    """Rows of the processes that ended or were stopped, within a second."""
    ready = wait(list(running), timeout=1)
    for connection in list(running):
        config, process, start = running[connection]
        row = dict(config=config, outcome='failed', like='')
        taken = time.monotonic() - start
        if connection in ready:
            try:
                row, measured = connection.recv()
                MEASURED.update(measured)  # for the next processes
            except EOFError:
                process.join()
                row['reason'] = f'the process ended with {process.exitcode}'
        elif taken > seconds:
            process.kill()
            row['reason'] = f'stopped after {seconds:g} seconds'
        else:
            continue
        process.join()
        connection.close()
        del running[connection]
        yield dict(row, seconds=round(taken, 1))
