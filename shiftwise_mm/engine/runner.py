"""mmengine's Runner, also for several processes without an accelerator."""
from __future__ import annotations

import datetime
import gc
import os
import subprocess

import torch.distributed as torch_dist
import torch.nn as nn
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .inputs import BUILD_ERRORS, InputError, in_a_line

__all__ = ['PortableRunner', 'build_runner', 'leave_group', 'start_gloo']

# Rank, rank in the machine and number of processes, by launcher.
_VARIABLES = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
    'slurm': ('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK',
            'OMPI_COMM_WORLD_SIZE'),
}


class PortableRunner(Runner):
    """A runner that does without an accelerator what others do with one.

    mmengine sets a CUDA device for every process of a distributed run, hands
    it to ``DistributedDataParallel`` and leaves SyncBN as it is, which runs
    on accelerators alone. Here processes of a machine without one talk over
    gloo, whatever ``env_cfg.dist_cfg.backend`` says, and SyncBN becomes BN.

    A checkpoint that does not load is an :class:`InputError`.
    """

    #: Whether training has begun: later errors are not those of the input.
    started = False

    def setup_env(self, env_cfg: dict) -> None:
        if self.distributed and not is_distributed() and _on_cpu():
            start_gloo(self.launcher, **env_cfg.get('dist_cfg', {}))
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None,
                   model: nn.Module) -> nn.Module:
        if self.distributed and _on_cpu() and not is_model_wrapper(model):
            model = self._without_sync_bn(model)
            model_wrapper_cfg = {
                'type': 'MMDistributedDataParallel',
                'broadcast_buffers': False,
                'find_unused_parameters':
                self.cfg.get('find_unused_parameters', False),
                **(model_wrapper_cfg or {}), 'device_ids': None
            }
        return super().wrap_model(model_wrapper_cfg, model)

    def _without_sync_bn(self, model: nn.Module) -> nn.Module:
        asked = self.cfg.pop('sync_bn', None)
        # torch's and mmcv's.
        count = sum(type(module).__name__ == 'SyncBatchNorm'
                    for module in model.modules())
        if count or asked:
            self.logger.info(
                f'SyncBN runs on accelerators only: its {count} layers are '
                'reverted to BN, each process has statistics of its own')
            model = revert_sync_batchnorm(model)
        return model

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        try:
            return super().load_checkpoint(filename, *args, **kwargs)
        # Broken files raise errors of many types.
        except Exception as error:
            raise InputError(f'checkpoint {filename} cannot be loaded: '
                             f'{in_a_line(error)}') from error

    def resume(self, filename: str, *args, **kwargs) -> None:
        try:
            super().resume(filename, *args, **kwargs)
        except InputError:
            raise
        except BUILD_ERRORS as error:
            raise InputError(f'training cannot go on from {filename}: '
                             f'{in_a_line(error)}') from error

    def call_hook(self, fn_name: str, **kwargs) -> None:
        self.started = self.started or fn_name == 'before_train'
        super().call_hook(fn_name, **kwargs)


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: ours, unless it names a ``runner_type``.

    Raises:
        InputError: If the model or something else cannot be built, or the
            variables of a distributed run are not set.
    """
    try:
        if 'runner_type' in cfg:
            return RUNNERS.build(cfg)
        return PortableRunner.from_cfg(cfg)
    except InputError:
        raise
    except BUILD_ERRORS as error:
        raise InputError(f'{cfg.filename}: {in_a_line(error)}') from error


def start_gloo(launcher: str, timeout: int | None = None, **_) -> None:
    """Joins the processes of a launcher over gloo.

    ``mmengine.dist.init_dist`` cannot: it sets a CUDA device first.

    Args:
        launcher (str): ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        timeout (int, optional): Seconds until a missing process is an error.

    Raises:
        InputError: If a variable that the launcher sets is missing.
    """
    try:
        own = [os.environ[name] for name in _VARIABLES[launcher]]
        if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
            os.environ['MASTER_ADDR'] = _first_host(
                os.environ['SLURM_NODELIST'])
        os.environ['MASTER_ADDR']  # noqa: B018  else torch's error is long
    except KeyError as error:
        raise InputError(f'launcher {launcher} needs the environment variable '
                         f'{error.args[0]}, which is not set') from error
    os.environ.update(zip(_VARIABLES['pytorch'], own, strict=True))
    os.environ.setdefault('MASTER_PORT', '29500')
    kwargs = {} if timeout is None else dict(
        timeout=datetime.timedelta(seconds=timeout))
    torch_dist.init_process_group('gloo', **kwargs)


def leave_group() -> None:
    """Ends a distributed run: no process leaves before the last arrives.

    The runner must be out of use. gloo's threads live as long as its model
    does, and abort a process that exits with them.
    """
    if is_distributed():
        torch_dist.barrier()
        torch_dist.destroy_process_group()
        gc.collect()  # a runner refers to itself


def _first_host(nodes: str) -> str:
    """Name of the first machine of a slurm job."""
    return subprocess.run(['scontrol', 'show', 'hostname', nodes],
                          capture_output=True, text=True,
                          check=True).stdout.split()[0]


def _on_cpu() -> bool:
    return get_device() == 'cpu'
