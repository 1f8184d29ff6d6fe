"""The commands of docs/training.md, as written."""
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from miniature import options
from mmengine.config import Config
from processes import run_forked
from slurm import install_slurm

from shiftwise_mm.models import ShiftWiseNet

TEXT = (ROOT / 'docs/training.md').read_text()
COMMANDS = [line for block in re.findall(r'```bash\n(.+?)```', TEXT, re.S)
            for line in block.splitlines()
            if re.search(r'tools/\S+', line)]


def words_of(command):
    """Tool, and its arguments; without the shell's variables."""
    words = shlex.split(command)
    start = next(i for i, word in enumerate(words)
                 if word.startswith('tools/'))
    return Path(words[start]).name, words[start + 1:]


def config_of(command):
    return next(word for word in words_of(command)[1]
                if word.startswith('configs/'))


def test_all_topics_are_there():
    for topic in ('Train on COCO', 'Train on ADE20K',
                  'Several GPUs / slurm'):
        assert f'\n## {topic}\n' in TEXT
    assert len(COMMANDS) >= 10


def test_every_option_of_the_tool_is_documented():
    usage = run_forked(ROOT / 'tools/train.py', '--help').stdout
    names = set(re.findall(r'--[a-z-]+', usage)) - {'--help'}
    assert {'--amp', '--resume', '--launcher'} < names
    for name in names:
        assert f'`{name}' in TEXT, name


def test_the_strategy_of_the_text_is_known(tmp_path):
    """Its run needs GPUs; its names are at least those of mmengine."""
    import mmengine._strategy  # noqa: F401,I001
    from mmengine.registry import FUNCTIONS, STRATEGIES
    code, = re.findall(r"```python\n(_base_ = .+?)```", TEXT, re.S)
    code = code.replace("'./", f"'{ROOT}/configs/segmentation/")
    (tmp_path / 'mine.py').write_text(code)
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert STRATEGIES.get(cfg.strategy.type)
    assert FUNCTIONS.get(cfg.strategy.model_wrapper.auto_wrap_policy.type)


@pytest.fixture(scope='module')
def project(miniature, tmp_path_factory):
    """A folder like the project's own, with the miniature data sets."""
    base = tmp_path_factory.mktemp('project')
    for name in 'tools', 'configs':
        (base / name).symlink_to(ROOT / name)
    (base / 'data').symlink_to(miniature / 'data')
    (base / 'bin').mkdir()
    install_slurm(base / 'bin')
    torch.save(
        ShiftWiseNet('tiny', num_paths=2, num_reps=4, ghost_ratio=.23,
                     kernel_sizes=(51, 49, 47, 13),
                     layer_scale_init_value=1.).state_dict(),
        base / 'shiftwise_tiny.pth')
    return base


@pytest.mark.slow
def test_the_commands_run(project):
    """One after the other; checkpoints get the names of whole runs."""
    path = f'{project}/bin:{Path(sys.executable).parent}:{os.environ["PATH"]}'
    for command in COMMANDS:
        done = subprocess.run(
            ['bash', '-c', ' '.join([
                command, '--cfg-options',
                *map(shlex.quote, options(ROOT / config_of(command)))])],
            cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=1200, env={**os.environ, 'PATH': path})
        assert done.returncode == 0, command + done.stdout[-3000:]
        # A detector that has learnt nothing may find nothing.
        expected = 'mIoU' if 'segmentation' in config_of(command) else \
            'mAP|results of the whole dataset is empty'
        assert re.search(expected, done.stdout), command
        for short, whole in (('epoch_1', 'epoch_36'),
                             ('iter_2', 'iter_160000')):
            for file in project.glob(f'work_dirs/*/{short}.pth'):
                file.rename(file.with_stem(whole))
