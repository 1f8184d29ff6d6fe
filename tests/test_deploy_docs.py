"""The commands of docs/deploy.md, as written."""
import contextlib
import io
import re
import shlex
import shutil

import pytest
import torch
from helpers import ROOT, randomise_norms
from mmengine.config import Config
from processes import run_forked

from shiftwise_mm.datasets import make_shapes_dataset
from shiftwise_mm.engine.model_files import build_model
from shiftwise_mm.registry import HOOKS

TEXT = (ROOT / 'docs/deploy.md').read_text()
COMMANDS = [line for block in re.findall(r'```bash\n(.+?)```', TEXT, re.S)
            for line in block.splitlines()]


@pytest.mark.slow  # each tool has shorter tests: deploy, test, export_onnx
def test_the_commands_run(tmp_path):
    """One after the other, on the demo's config and a small data set."""
    for name in 'tools', 'configs':
        (tmp_path / name).symlink_to(ROOT / name)
    make_shapes_dataset(tmp_path / 'data/shapes', num_train=4, num_val=4,
                        image_size=(128, 96))
    config, checkpoint = shlex.split(COMMANDS[0])[2:4]
    model = build_model(Config.fromfile(ROOT / config))
    randomise_norms(model.backbone)
    (tmp_path / checkpoint).parent.mkdir(parents=True)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / checkpoint)
    assert COMMANDS[2].endswith("'shiftwise_mm[export]'")
    for command in [c for c in COMMANDS if c.startswith('python ')]:
        _, tool, *words = shlex.split(command)
        done = run_forked(ROOT / tool, *words, cwd=tmp_path, merge=True)
        assert done.returncode == 0, command + done.stdout[-2000:]
    for name in 'deployed.pth', 'deployed.py', 'detector.onnx', \
            'backbone.onnx':
        assert (tmp_path / name).is_file()
    shutil.rmtree(tmp_path / 'work_dirs')


def test_the_hook_of_the_text_is_known():
    code, = re.findall(r'```python\n(custom_hooks.+?)```', TEXT, re.S)
    space = {}
    exec(code, space)
    for hook in space['custom_hooks']:
        assert HOOKS.build(hook)


@pytest.mark.slow
def test_the_measurement_of_the_text():
    code, = re.findall(r'```python\n(import statistics.+?)```', TEXT, re.S)
    space, printed = {}, io.StringIO()
    exec(code, space)
    torch.compiler.reset()
    with contextlib.redirect_stdout(printed):
        space['compare'](dict(embed_dims=(8, 12, 16, 20),
                              depths=(1, 1, 1, 1)), 64, 3)
    assert len(printed.getvalue().splitlines()) == 2
