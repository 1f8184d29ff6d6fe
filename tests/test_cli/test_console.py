"""The command `shiftwise`, as its user runs it."""
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from processes import run_fresh

import shiftwise_mm
from shiftwise_mm.cli.console import SUB_COMMANDS, main
from shiftwise_mm.models import ShiftWiseNet
from shiftwise_mm.version import __version__

MODULES = {path.stem for path in ROOT.glob('shiftwise_mm/cli/*.py')
           if path.stem not in ('__init__', 'console')}
TOOLS = {path.stem for path in ROOT.glob('tools/*.py')} - {
    'setup_env', 'test_pythons'}


def test_each_module_is_a_sub_command_and_a_tool():
    assert {module for module, _ in SUB_COMMANDS.values()} == MODULES
    # It starts where the package cannot be imported, by -m alone.
    assert MODULES - {'doctor'} == TOOLS
    for name in TOOLS:
        text = (ROOT / f'tools/{name}.py').read_text()
        assert text.endswith(
            f'from shiftwise_mm.cli.{name} import main, parse_args  '
            "# noqa: F401\n\nif __name__ == '__main__':\n    main()\n")


def test_the_installed_command_lists_all(tmp_path):
    """By its script; without importing any of them."""
    script = Path(sys.executable).with_name('shiftwise')
    done = run_fresh(script, '--help', cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr
    for name, (_, line) in SUB_COMMANDS.items():
        assert f'\n  {name} ' in done.stdout and line in done.stdout
    assert all(len(line) < 80 for line in done.stdout.splitlines())


def run_without_reader(*arguments, cwd, unbuffered):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as gone:
        return subprocess.run(
            [Path(sys.executable).with_name('shiftwise'), *arguments],
            stdout=gone, stderr=subprocess.PIPE, cwd=cwd, text=True,
            env={**os.environ, 'PYTHONUNBUFFERED': unbuffered})


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_leaves_is_no_error(unbuffered, tmp_path):
    """``shiftwise | head``: printed at once, or when the program ends."""
    done = run_without_reader(cwd=tmp_path, unbuffered=unbuffered)
    assert (done.returncode, done.stderr) == (141, '')


def test_nor_is_it_one_of_the_file_that_is_read(tmp_path):
    torch.save(ShiftWiseNet('nano').state_dict(), tmp_path / 'nano.pth')
    done = run_without_reader('inspect', 'nano.pth', cwd=tmp_path,
                              unbuffered='1')
    assert done.returncode == 141
    assert 'inspect_checkpoint' not in done.stderr


def test_another_broken_pipe_is_one(monkeypatch):
    def broken():
        raise BrokenPipeError('of a worker')

    monkeypatch.setattr('shiftwise_mm.cli.console.help_text', broken)
    with pytest.raises(BrokenPipeError, match='of a worker'):
        main([])


def test_help_and_version(capsys):
    assert main([]) == main(['--help']) == main(['-h']) == 0
    first, *others = capsys.readouterr().out.split('usage: ')[1:]
    assert len(others) == 2 and all(other == first for other in others)
    assert main(['--version']) == 0
    assert capsys.readouterr().out == f'shiftwise_mm {__version__}\n'


@pytest.mark.parametrize('name, near', [('trian', 'did you mean train? '),
                                        ('xyz', ''), ('--train', '')])
def test_an_unknown_one_gets_a_line(name, near, capsys):
    assert main([name, 'x']) == 2
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith(
        f'shiftwise: there is no sub-command {name!r}; {near}')
    assert printed.err.count('\n') == 1


@pytest.mark.parametrize('name', SUB_COMMANDS)
def test_each_gets_its_options(name, monkeypatch, capsys):
    """Its own help, under the name that the user has typed."""
    monkeypatch.setattr(sys, 'argv', ['/some/where/shiftwise', name])
    with pytest.raises(SystemExit) as caught:
        main([name, '--help'])
    assert caught.value.code == 0
    usage = capsys.readouterr().out
    assert usage.startswith(f'usage: shiftwise {name} ')
    assert sys.argv[0] == '/some/where/shiftwise'
    module = import_module(f'shiftwise_mm.cli.{SUB_COMMANDS[name][0]}')
    assert module.__doc__.split()[0] in usage


@pytest.mark.parametrize('command', [
    ('-m', 'shiftwise_mm', 'demo'), (ROOT / 'tools/demo_seg.py', ),
    (ROOT / 'tools/compare_sparsity.py', )], ids=lambda words: str(words[-1]))
def test_threads_of_the_demos_wait_asleep(command, tmp_path):
    """The setting is there when torch's OpenMP is loaded, which reads it."""
    (tmp_path / 'torch').mkdir()
    (tmp_path / 'torch/__init__.py').write_text(
        "import os\nraise SystemExit(os.environ.get('OMP_WAIT_POLICY'))\n")
    env = {name: value for name, value in os.environ.items()
           if name != 'OMP_WAIT_POLICY'}
    for given, expected in [({}, 'PASSIVE'),
                            ({'OMP_WAIT_POLICY': 'active'}, 'active')]:
        done = run_fresh(*command, '--data', 'x', cwd=tmp_path, env={
            **env, 'PYTHONPATH': str(tmp_path), **given})
        assert done.stderr.strip() == expected


def test_the_list_comes_without_torch(tmp_path):
    done = run_fresh('-Ximporttime', '-m', 'shiftwise_mm', '--help',
                     cwd=tmp_path)
    assert done.returncode == 0 and 'usage: shiftwise' in done.stdout
    modules = {line.rpartition('|')[2].strip()
               for line in done.stderr.splitlines()}
    assert 'shiftwise_mm.cli.console' in modules
    assert not modules & {'torch', 'mmengine', 'numpy'}


@pytest.mark.parametrize('words, program', [
    (['/x/bin/shiftwise', 'train', '-m'], 'shiftwise'),
    (['-P', '-u', '-m', 'shiftwise_mm', 'train'], 'shiftwise_mm'),
    (['tools/train.py', 'shiftwise'], 'train.py'),
    (['-c', 'from multiprocessing import shiftwise'],
     'from multiprocessing import shiftwise'),
    ([], '')])
def test_commands_are_told_from_other_programs(words, program):
    """These register the package as they import it."""
    assert shiftwise_mm._program(['/usr/bin/python', *words]) == program


def test_the_module_is_the_same_and_exit_codes_pass(tmp_path):
    """And a config is looked for inside the package, in any folder."""
    done = run_fresh('-m', 'shiftwise_mm', 'flops',
                     'shiftwise_mm::demo/nothing.py', '--shape', 32, 32,
                     cwd=tmp_path)
    assert done.returncode == 2
    assert 'no config shiftwise_mm::demo/nothing.py' in done.stderr
