"""Every command of the documentation is run by a test, or here."""
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest
from docs_commands import (
    TABLE,
    entries_for,
    files_of,
    missing_config,
    parsed,
    plain,
    test_exists,
)
from docs_pages import (
    chinese_pages,
    commands_of,
    english_pages,
    other_pages,
    read_page,
)
from helpers import ROOT
from processes import run_forked
from shipped import read

PAGES = [*english_pages(), *chinese_pages(), *other_pages()]
COMMANDS = {command: name for name in reversed(PAGES)
            for command in commands_of(read_page(name))}
every_command = pytest.mark.parametrize(
    'command', COMMANDS,
    ids=[f'{page}: {plain(command)[:60]}'
         for command, page in COMMANDS.items()])


@every_command
def test_it_has_one_entry_and_a_test(command):
    entries = entries_for(command)
    assert entries, f'{COMMANDS[command]}: nothing runs {command!r}; add it ' \
        'to TABLE in tests/docs_commands.py'
    assert len(entries) == 1, [entry.pattern for entry in entries]
    entry, = entries
    assert (entry.test is None) != (entry.run is None)
    assert entry.test is None or test_exists(entry.test), entry.test


def test_every_entry_has_a_command():
    used = {entry for command in COMMANDS for entry in entries_for(command)}
    assert not [entry.pattern for entry in TABLE if entry not in used]


def test_a_test_that_is_not_there_is_noticed():
    assert test_exists(
        'tests/test_docs_commands.py::test_every_entry_has_a_command')
    assert not test_exists('tests/test_docs_commands.py::test_every_entry')
    assert not test_exists('tests/test_no_file.py::test_it')


@every_command
def test_its_tool_takes_it(command):
    """Options by the tool's own parser; configs are there and take them."""
    try:
        args = parsed(command)
    except SystemExit as error:
        pytest.fail(f'{command!r}: exit code {error.code}')
    for word in files_of(command):
        assert (ROOT / word).is_file() or '--out' in command, word
    assert not [word for word in shlex.split(command) if missing_config(word)]
    config = getattr(args, 'config', None)
    if isinstance(config, str) and config.startswith('configs/'):
        read(config.removeprefix('configs/')).merge_from_dict(
            getattr(args, 'cfg_options', None) or {})


RUN = [command for command in COMMANDS
       if any(entry.run is not None for entry in entries_for(command))]


@pytest.mark.parametrize('command', RUN)
def test_it_runs(command, tmp_path):
    """In a copy of what it reads, with the words of its entry."""
    (tmp_path / 'docs').mkdir()
    for name in 'tools', 'configs':
        (tmp_path / name).symlink_to(ROOT / name)
    entry, = entries_for(command)
    program, *words = [*shlex.split(plain(command)), *entry.run]
    if program == 'python':
        done = run_forked(*words, cwd=tmp_path, merge=True)
    else:
        done = subprocess.run(
            [Path(sys.executable).with_name(program), *words], cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    for picture in re.findall(r'docs/\w+\.png', command):
        assert (tmp_path / picture).read_bytes()[:4] == b'\x89PNG'


MAKE = sorted({words for name in PAGES for words in (
    *re.findall(r'`make ([a-z][^`]*)`', read_page(name).prose),
    *(command.partition(' ')[2] for command in commands_of(read_page(name))
      if command.startswith('make ')))})


@pytest.mark.parametrize('words', MAKE)
def test_make_knows_the_target(words):
    """Also those within sentences; nothing of them is run."""
    makefile = (ROOT / 'Makefile').read_text()
    target, *options = shlex.split(words)
    assert re.search(rf'^{target}:', makefile, re.M), target
    names = [option.partition('=')[0] for option in options]
    for name in names:
        assert re.search(rf'\b{name}\b', makefile) or \
            name in (ROOT / 'tools/setup_env.py').read_text(), name
    # An empty value stands for one that is named in the sentence.
    filled = [option + 'x' * option.endswith('=') for option in options]
    done = subprocess.run(
        ['make', '-n', target, *filled], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


def test_the_environment_has_what_the_docs_activate():
    """``source .venv/bin/activate`` puts its programs first."""
    activate = Path(sys.prefix, 'bin/activate')
    if not activate.is_file() or not shutil.which('bash'):
        pytest.skip('not in a virtual environment')
    done = subprocess.run(
        ['bash', '-ec', f'source {shlex.quote(str(activate))}; '
         'command -v python'], text=True, stdout=subprocess.PIPE)
    assert Path(done.stdout.strip()) == Path(sys.prefix, 'bin/python')


def test_packages_of_debian_are_those_of_the_set_up():
    """Those that the set-up names where something is missing."""
    named = set(re.findall(
        r"'([a-z][\w.+-]+)'",
        (ROOT / 'tools/env_setup/checks.py').read_text()))
    for command in COMMANDS:
        if 'apt-get install' in command:
            packages = set(shlex.split(command)[3:])
            assert packages - named <= {
                'python3.11', 'python3.11-venv', 'python3.11-dev', 'make'}, \
                command


def test_pip_takes_extras_and_pins_of_the_project():
    known = metadata('shiftwise_mm').get_all('Provides-Extra')
    pins = dict(re.findall(
        r'^([\w.-]+)==(\S+)', '\n'.join(
            path.read_text() for path in ROOT.glob('requirements/*.txt')),
        re.M))
    for command in COMMANDS:
        words = shlex.split(command)
        if 'pip' not in words[:3] or 'install' not in words:
            continue
        for word in words:
            for extras in re.findall(r'\[(.+)\]$', word):
                for extra in extras.split(','):
                    assert extra in known, command
            name, separator, version = word.partition('==')
            if separator:
                assert pins[name] == version, command
