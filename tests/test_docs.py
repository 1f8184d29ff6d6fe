"""What the README says must be so."""
import re

from helpers import ROOT
from mmengine.config import Config

README = (ROOT / 'README.md').read_text()


def test_the_config_of_the_readme_trains_a_step(tmp_path):
    """Ten lines in a user's own file, with nothing else but the install."""
    import torch
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.structures import InstanceData
    code, = re.findall(r"```python\n(_base_ = 'mmdet::.+?)```", README, re.S)
    file = tmp_path / 'mine.py'
    file.write_text(code)
    register_all_modules()
    cfg = Config.fromfile(file)
    cfg.model.backbone.arch = 'nano'  # tiny takes long on a CPU
    cfg.model.neck.in_channels = [24, 48, 96, 192]
    model = MODELS.build(cfg.model)
    sample = DetDataSample(metainfo=dict.fromkeys(
        ('img_shape', 'pad_shape', 'batch_input_shape'), (64, 64)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[5., 5., 40., 50.]]), labels=torch.tensor([3]))
    losses = model.loss(torch.rand(2, 3, 64, 64), [sample, sample])
    model.parse_losses(losses)[0].backward()
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, name
    assert Config.fromfile(file).optim_wrapper.optimizer.type == 'AdamW'


def test_files_and_tools_named_in_the_readme_exist():
    named = re.findall(r'(?:tools|tests|docs|configs)/[\w/.-]+\.\w+', README)
    assert 'tools/plot_shifts.py' in named
    for name in named:
        assert (ROOT / name).is_file() or name == 'tools/train.py', name


def test_configs_of_the_table_of_costs_exist():
    text = (ROOT / 'docs/flops.md').read_text()
    stems = dict(re.findall(r'^(\w)=(configs/\S+)$', text, re.M))
    calls = re.findall(r'^count \$(\w)(\S+\.py) (.+)$', text, re.M)
    rows = re.findall(r'^\| \d \| .+, (\d+)x(\d+) \| (\d) \|', text, re.M)
    assert [rest.split() for *_, rest in calls] == list(map(list, rows))
    for stem, end, _ in calls:
        assert (ROOT / (stems[stem] + end)).is_file()


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'make (demo|test-all|test|setup)\b', README):
        assert f'\n{target}:' in makefile
