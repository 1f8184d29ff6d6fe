"""What the README says must be so."""
import ast
import inspect
import re

from helpers import ROOT, run_python
from mmengine.config import Config

README = (ROOT / 'README.md').read_text()
CHECKPOINTS = (ROOT / 'docs/checkpoints.md').read_text()
SPARSITY = (ROOT / 'docs/sparsity.md').read_text()


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


def test_speeds_of_the_readme_are_those_measured():
    """All figures of all runs on CPUs as they are, in both languages."""
    table = (ROOT / 'docs/performance.md').read_text()
    table, count = re.subn(
        r"^\*\*By AVX2's instructions on Zen 4.*?(?=^## )", '', table,
        flags=re.S | re.M)
    assert count == 1
    for page in 'README.md', 'README_zh-CN.md':
        text = (ROOT / page).read_text('utf-8')
        named = re.findall(r'\d+\.\d+x', text)
        *networks, least, most = named
        measured = {
            # What stands in brackets is of others.
            peer: [re.findall(r'\d+\.\d+x', re.sub(r'\(.*?\)', '', row))
                   for row in re.findall(
                       rf'^\| {peer} \| [^|]+ \| ([^|]+)', table, re.M)]
            for peer in ('SW-T inference over UniRepLKNet-T as published',
                         'SW-T inference over SLaK-T as published',
                         'same, over the fastest form in plain torch')}
        uni, slak, operator = measured.values()
        assert len(uni) == len(slak) == 4  # AVX2, Zen 4, Intel, Zen 5
        assert networks == [x for both in zip(uni[::-1], slak[::-1],
                                              strict=True)
                            for x in both[0] + both[1]], page
        forward = sorted(sum(operator[::2], []))
        assert (least, most) == (forward[0], forward[-1]), page


def test_the_readme_loads_published_weights(tmp_path):
    """Its lines, on a file of the size and names that upstream saves."""
    import torch
    from published import published_file

    from shiftwise_mm.models import ShiftWiseNet
    code, = re.findall(r'```python\n(from shiftwise_mm.checkpoint.+?)```',
                       README, re.S)
    assert len(code.splitlines()) == 5
    source = ShiftWiseNet('tiny', norm_out=False)
    torch.save(published_file('v2', source), tmp_path / 'SW-tiny.pth')
    code += ('print(backbone.stages[3][2].pwconv1[1].weight.double()'
             '.sum().item())')
    *report, total = run_python(code, tmp_path)
    assert any('ShiftWise v2, published names' in line for line in report)
    assert float(total) == \
        source.stages[3][2].pwconv1[1].weight.double().sum().item()


def test_the_error_shown_in_the_docs_is_the_one_raised():
    import pytest
    from published import MINI, make

    from shiftwise_mm.models import ShiftWiseNet
    shown, = re.findall(r'```\n(stage 0 .+?)```', CHECKPOINTS, re.S)
    with pytest.raises(ValueError) as caught:
        ShiftWiseNet(MINI, small_kernel=5).load_state_dict(
            make('v2').state_dict())
    assert ' '.join(shown.split()) in str(caught.value)


def test_hooks_of_the_docs_are_built():
    """The lines of ``custom_hooks``, in whatever page they stand."""
    from docs_pages import english_pages, read_page

    from shiftwise_mm.registry import HOOKS
    found = {block.code for name in english_pages()
             for block in read_page(name).blocks
             if block.code.startswith('custom_hooks = ')}
    assert len(found) >= 2
    for code in found:
        names = {}
        exec(code, names)
        for cfg in names['custom_hooks']:
            assert type(HOOKS.build(cfg)).__name__ in cfg['type']


def test_options_of_the_hook_are_those_of_the_docs():
    from shiftwise_mm.engine.hooks import CoarseSparsityHook
    shown = re.findall(r'^\| `(\w+)` \| `(.+?)` \|', SPARSITY, re.M)
    options = inspect.signature(CoarseSparsityHook).parameters.values()
    assert [(name, ast.literal_eval(value)) for name, value in shown] == [
        (option.name, option.default) for option in options]


def test_configs_of_the_table_of_costs_exist():
    text = (ROOT / 'docs/flops.md').read_text()
    stems = dict(re.findall(r'^(\w)=(configs/\S+)$', text, re.M))
    calls = re.findall(r'^count \$(\w)(\S+\.py) (.+)$', text, re.M)
    rows = re.findall(r'^\| \d \| .+, (\d+)x(\d+) \| (\d) \|', text, re.M)
    assert [rest.split() for *_, rest in calls] == list(map(list, rows))
    for stem, end, _ in calls:
        assert (ROOT / (stems[stem] + end)).is_file()
