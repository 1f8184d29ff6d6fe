"""One table: how each command of the documentation is run by the tests."""
from __future__ import annotations

import ast
import re
import runpy
import shlex
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from helpers import ROOT

DEMO = 'tests/test_engine/test_demo.py::test_the_tool_trains_and_reports'
DEMO_SEG = DEMO.replace('test_demo', 'test_demo_seg')
TRAINING = 'tests/test_training_docs.py::test_the_commands_run'
FILES = 'tests/test_engine/test_checkpoint_files.py::'
SWAP = 'tests/test_swap/test_tool.py::test_it_writes_and_checks'
REPORT = ('tests/test_engine/test_sparsity_report.py::'
          'test_the_tool_as_its_user_runs_it')
SETUP = 'tests/test_setup_env.py::'
OWN = 'tests/test_docs_commands.py::'
# A config of the project, one of its own, and what follows.
CONFIG = r'configs/\S+\.py'
REST = r'( .+)?'


@dataclass(frozen=True)
class Entry:
    """What runs the commands that match a pattern.

    Attributes:
        pattern: of the whole command, ``.venv/bin/`` left out.
        test: id of the test that runs it, or its tool on small inputs.
        run: instead: further words with which the check itself runs it.
    """

    pattern: str
    test: str | None = None
    run: tuple[str, ...] | None = None


TABLE = (
    # The environment.
    Entry(r'sudo apt-get install .+',
          OWN + 'test_packages_of_debian_are_those_of_the_set_up'),
    Entry(r'make setup( STACK=onedl)?',
          SETUP + 'test_nothing_to_do_is_silent_and_fast'),
    Entry(r'source \.venv/bin/activate',
          OWN + 'test_the_environment_has_what_the_docs_activate'),
    Entry(r"pip install --no-build-isolation '\.\[taichi\]'",
          SETUP + 'test_package_is_built_from_current_sources_alone'),
    Entry(r"pip install 'setuptools<81'", run=('--no-index', '--no-deps')),
    Entry(r'make (test|lint)( STACK=onedl)?',
          OWN + 'test_make_knows_the_target'),
    Entry(r'pytest --import-mode=importlib tests/test_ops/test_spec\.py',
          'tests/test_ops/test_spec.py::'
          'test_tables_are_the_published_ones'),
    Entry(r'(python3\.11 -m venv|source) ~/shiftwise-env(/bin/activate)?',
          OWN + 'test_the_environment_has_what_the_docs_activate'),
    Entry(r'python -m pip wheel --no-deps --wheel-dir dist \.',
          'tests/test_install.py::test_the_built_wheel_is_complete'),
    Entry(r'pip install torch==\S+',
          SETUP + 'test_torch_comes_first_and_is_held'),
    Entry(r"pip install 'setuptools<81' wheel .+",
          SETUP + 'test_direct_requirements_are_pinned_with_a_reason'),
    Entry(r'MMCV_WITH_OPS=1 .*pip install --no-build-isolation \S+',
          SETUP + 'test_built_wheel_is_kept'),
    Entry(r'pip install ~/\.cache/shiftwise_mm/wheels/\S+',
          'tests/test_install_docs.py::'
          'test_the_wheel_of_mmcv_is_where_the_set_up_keeps_it'),
    Entry(r"pip install (onedl-mmengine==\S+|'shiftwise_mm\[export\]')",
          'tests/test_stack.py::test_extras_bring_the_pinned_releases'),
    Entry(r"pip install 'dist/.+\.whl\[.+\]'",
          'tests/test_install.py::test_the_wheel_works_elsewhere'),
    Entry(r'python -c ".+"', run=()),
    # Demos.
    Entry(r'make demo( DATA=\w+)?', DEMO),
    Entry(r'make demo-seg DATA=\w+', DEMO_SEG),
    # Training and testing.
    Entry(rf'python tools/train\.py {CONFIG}{REST}', TRAINING),
    Entry(r'python tools/train\.py mine_shiftwise-tiny\.py --auto-scale-lr',
          'tests/test_own_data_docs.py::test_the_recipe_trains'),
    Entry(r'python mmpretrain/tools/train\.py configs/pretraining/\S+',
          'tests/test_configs.py::test_pretraining_fits_together'),
    Entry(r'python tools/test\.py configs/(detection|segmentation)/.+',
          TRAINING),
    Entry(rf'python tools/test\.py configs/classification/\S+{REST}',
          'tests/test_engine/test_testing.py::test_a_classifier'),
    Entry(r'python tools/test\.py work_dirs/demo/\S+ \S+',
          'tests/test_engine/test_demo.py::'
          'test_mmdets_own_tools_take_our_config_unmodified'),
    Entry(rf'bash tools/dist_(train|test)\.sh {CONFIG}{REST}', TRAINING),
    Entry(rf'GPUS=2 .*bash tools/slurm_train\.sh{REST}', TRAINING),
    # Backbones and checkpoints.
    Entry(r'python tools/swap_backbone\.py mmdet::\S+ --backbone \S+ --check',
          SWAP),
    Entry(r'python tools/swap_backbone\.py mine\.py .+ --pretrained \S+',
          'tests/test_swap/test_docs.py::'
          'test_the_examples_print_and_write_what_is_shown'),
    Entry(r'python tools/check_swaps\.py --backbone \S+ --report \S+',
          'tests/test_swap/test_sweep.py::'
          'test_the_tool_on_two_shipped_configs'),
    Entry(r'python tools/inspect_checkpoint\.py FILE',
          FILES + 'test_inspect_as_its_user_runs_it'),
    Entry(r'python tools/convert_checkpoint\.py FILE NEW --to native',
          FILES + 'test_convert_as_its_user_runs_it'),
    Entry(rf'python tools/get_flops\.py {CONFIG} --shape \d+ \d+{REST}',
          'tests/test_analysis/test_get_flops.py::'
          'test_published_beside_what_runs'),
    Entry(r'python tools/sparsity_report\.py \S+ --out \S+', REPORT),
    Entry(r'python tools/compare_sparsity\.py \S+ \S+',
          'tests/test_engine/test_sparsity_comparison.py::'
          'test_the_tool_as_its_user_runs_it'),
    # Deployment.
    Entry(r'python tools/deploy\.py \S+ \S+ deployed\.pth',
          'tests/test_engine/test_deploy.py::'
          'test_the_demo_has_the_same_predictions'),
    Entry(r'python tools/test\.py deployed\.py deployed\.pth',
          'tests/test_engine/test_deploy.py::'
          'test_the_demo_has_the_same_predictions'),
    Entry(rf'python tools/export_onnx\.py \S+ \S+ \S+\.onnx{REST}',
          'tests/test_engine/test_export_onnx.py::test_the_tool'),
    # Pictures.
    Entry(r'python tools/(predict|plot_erf|plot_curves)\.py .+',
          'tests/test_visualization_docs.py::test_the_command_runs'),
    Entry(rf'python tools/plot_shifts\.py docs/\w+\.png{REST}', run=()),
    # Several processes.
    Entry(r'torchrun --nproc_per_node 8 -m shiftwise_mm train mine\.py .+',
          'tests/test_engine/test_runner.py::'
          'test_the_installed_module_is_launched'),
    # What works here.
    Entry(r'python -m shiftwise_mm\.doctor',
          'tests/test_diagnosis/test_diagnose.py::'
          'test_the_command_finds_nothing_broken'),
)


def plain(command: str) -> str:
    """The command as if the environment were active."""
    return re.sub(r'(^|\s)\.venv/bin/(?!activate)', r'\1', command)


def entries_for(command: str) -> list[Entry]:
    """The entries of the table that the command matches; one is expected."""
    return [entry for entry in TABLE
            if re.fullmatch(entry.pattern, plain(command))]


@cache
def names_in(file: str) -> frozenset[str]:
    """The functions of a test file."""
    return frozenset(
        node.name for node in ast.parse((ROOT / file).read_text()).body
        if isinstance(node, ast.FunctionDef))


def test_exists(test: str) -> bool:
    """Whether a test of this id is there."""
    file, _, name = test.partition('::')
    return (ROOT / file).is_file() and name in names_in(file)


test_exists.__test__ = False  # no test itself


@cache
def parser_of(tool: str):
    """``parse_args`` of ``tools/X.py`` or of a sub-command."""
    if tool.startswith('tools/'):
        return runpy.run_path(str(ROOT / tool))['parse_args']
    from shiftwise_mm.cli.console import SUB_COMMANDS
    return import_module(
        f'shiftwise_mm.cli.{SUB_COMMANDS[tool][0]}').parse_args


def parsed(command: str):
    """Arguments of a command of ours by its own parser, else None.

    Raises:
        SystemExit: If the tool does not take them.
    """
    words = shlex.split(plain(command))
    if words[0] == 'python' and words[1].startswith('tools/'):
        return parser_of(words[1])(words[2:])
    if words[0] == 'shiftwise' and not words[1].startswith('-'):
        return parser_of(words[1])(words[2:])
    return None


def files_of(command: str) -> list[str]:
    """Files of the project that a command names."""
    return [word for word in shlex.split(command)
            if re.match(r'(configs|tools|docs|tests)/', word)]


def missing_config(word: str) -> bool:
    """Whether ``PACKAGE::FILE`` names a config that is not there."""
    package, separator, file = word.partition('::')
    if not separator or not package.isidentifier():
        return False
    folder, = find_spec(package).submodule_search_locations
    return not Path(folder, '.mim/configs', file).is_file()
