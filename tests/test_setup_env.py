"""tools/setup_env.py, mostly against a stand-in for Python.

The stand-in answers what the set-up asks of an interpreter, makes folders in
place of environments and writes down its calls, so that whole set-ups run in
well under a second.
"""
import ast
import errno
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / 'tools' / 'setup_env.py'
REQUIREMENTS = ROOT / 'requirements'
KEY = f'mmcv-2.1.0_torch-2.13.0+cpu_cp311_{platform.machine()}_cpu'
WHEEL = 'mmcv-2.1.0-cp311-cp311-linux_x86_64.whl'

STAND_IN = r'''#!/bin/sh
CALLER_PATH=$PATH
PATH=/usr/bin:/bin
case "$*" in
*missing_libraries*)
    echo "{\"version\": [${FAKE_VERSION:-3, 11, 4}]," \
      "\"venv\": ${FAKE_VENV:-true}, \"headers\": ${FAKE_HEADERS:-true}," \
      "\"missing_libraries\": [$FAKE_LIBRARIES]}"
    exit ;;
*torch.__version__*)
    echo "{\"version\": \"2.13.0+cpu\", \"root\": \"/torch\"," \
      "\"python_include\": \"/include\", \"sees_gpu\": false}"
    exit ;;
esac
echo "$*" >> "$FAKE_CALLS"
if [ -n "$FAKE_HANG" ]; then
    case "$*" in *$FAKE_HANG*) exec sleep 20 ;; esac
fi
if [ -n "$FAKE_ORPHAN" ]; then
    case "$*" in *$FAKE_ORPHAN*) sleep 2 ;; esac
fi
if [ -n "$FAKE_FAIL" ]; then
    case "$CFLAGS $*" in *$FAKE_FAIL*) echo 'error: no luck'; exit 1 ;; esac
fi
if [ -n "$FAKE_PIP" ]; then
    case "$*" in *'pip install'*) exec "$FAKE_PIP" "$@" ;; esac
fi
for last; do :; done
case "$*" in
'-m venv '*)
    mkdir -p "$last/bin"
    mkdir -p "$last/lib/python3.11/site-packages/torch-2.13.0+cpu.dist-info"
    cp "$0" "$last/bin/python" ;;
'-m pip download '*)
    for word; do
        if [ "$before" = --dest ]; then dest=$word; fi
        before=$word
    done
    mmcv=${FAKE_MMCV:-mmcv-2.1.0}
    mkdir -p "$dest/$mmcv"
    touch "$dest/$mmcv/setup.py"
    tar -C "$dest" -czf "$dest/$mmcv.tar.gz" "$mmcv"
    rm -r "$dest/$mmcv" ;;
*bdist_wheel*)
    echo "jobs $MAX_JOBS cflags $CFLAGS" >> "$FAKE_CALLS"
    mkdir -p "$last"
    mmcv=${FAKE_MMCV:-mmcv-2.1.0}
    echo built > "$last/$mmcv-cp311-cp311-linux_x86_64.whl" ;;
*setup-work/package*)
    for word; do
        case "$word" in */package) ls -R "$word" >> "$FAKE_CALLS" ;; esac
    done ;;
esac
'''


def _load():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        spec = importlib.util.spec_from_file_location('setup_env', SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


setup_env = _load()
checks, mmcv = setup_env.checks, setup_env.mmcv
process = sys.modules['env_setup.process']
stamps = sys.modules['env_setup.stamps']
venv = sys.modules['env_setup.venv']


class Project:
    """A small project folder and the environment its set-up runs in."""

    def __init__(self, folder: Path):
        self.root = folder / 'project'
        self.bin = folder / 'bin'
        self.cache = folder / 'wheels'
        self.calls_file = folder / 'calls'
        for name in ('shiftwise_mm', 'kernels', 'configs'):
            (self.root / name).mkdir(parents=True)
            (self.root / name / '__init__.py').touch()
        (self.root / 'setup.py').touch()
        shutil.copytree(REQUIREMENTS, self.root / 'requirements')
        self.bin.mkdir()
        self.program('python3', STAND_IN)
        self.program('g++', '#!/bin/sh\necho "g++ $*" >> "$FAKE_CALLS"\n'
                     'exit ${FAKE_COMPILER:-0}\n')
        self.env = {
            'PATH': str(self.bin), 'HOME': str(folder),
            'SHIFTWISE_WHEELS': str(self.cache), 'MAX_JOBS': '3',
            'FAKE_CALLS': str(self.calls_file), 'PIP_CONFIG_FILE': os.devnull}

    @property
    def venv(self) -> Path:
        return self.root / '.venv'

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def keep_wheel(self, key: str = KEY) -> Path:
        (self.cache / key).mkdir(parents=True)
        (self.cache / key / WHEEL).write_text('kept')
        return self.cache / key / WHEEL

    def start(self, **env) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), '--root', str(self.root)],
            env={**self.env, **env}, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Tests that run in the background inherit an ignored SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))

    def run(self, **env) -> tuple:
        """Returns the exit code and the lines said."""
        done = self.start(**env)
        out, err = done.communicate(timeout=60)
        assert not out
        assert 'Traceback' not in err
        return done.returncode, err.splitlines()

    def refused(self, **env) -> str:
        """Runs a set-up that must fail with one line; returns the line."""
        code, lines = self.run(**env)
        assert (code, len(lines)) == (2, 1), lines
        assert lines[0].startswith('setup: ')
        return lines[0]

    def set_up(self, **env) -> list:
        """Runs a set-up that must succeed; returns the calls it made."""
        self.calls_file.write_text('')
        code, lines = self.run(**env)
        assert code == 0, lines
        assert self.plan(**env) == []
        return self.calls()

    def calls(self) -> list:
        return self.calls_file.read_text().splitlines()

    def plan(self, **env) -> list:
        return setup_env.Setup(self.root, {**self.env, **env}).pending()

    def wait_for_call(self, text: str) -> None:
        for _ in range(200):
            if self.calls_file.exists() and any(
                    text in call for call in self.calls()):
                return
            time.sleep(0.05)
        raise AssertionError(f'no call with {text!r}')


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


@pytest.fixture
def ready(project):
    """A project that has been set up with a kept wheel."""
    project.keep_wheel()
    project.set_up()
    return project


@pytest.fixture(scope='module')
def unchanged(tmp_path_factory):
    """A project that has been set up, shared by tests that leave it so."""
    project = Project(tmp_path_factory.mktemp('unchanged'))
    project.keep_wheel()
    project.set_up()
    return project


def matching(calls: list, text: str) -> list:
    return [call for call in calls if text in call]


# What is missing is told in one line, before anything is made.


@pytest.mark.parametrize(('env', 'thing', 'package'), [
    ({'FAKE_HEADERS': 'false'}, 'Python.h', 'python3.11-dev'),
    ({'FAKE_VENV': 'false'}, 'ensurepip', 'python3.11-venv'),
    ({'FAKE_LIBRARIES': '"libGL.so.1"'}, 'libGL.so.1', 'libgl1'),
    ({'FAKE_LIBRARIES': '"libgthread-2.0.so.0"'}, 'libgthread-2.0.so.0',
     'libglib2.0-0'),
    ({'FAKE_LIBRARIES': '"libX11.so.6"'}, 'libX11.so.6', 'libx11-6'),
    ({'CXX': 'no-such-c++'}, 'no-such-c++', 'g++'),
    ({'FORCE_CUDA': '1', 'CUDA_HOME': '/nowhere'}, 'nvcc', 'cuda'),
], ids=['headers', 'venv', 'libgl', 'libglib', 'libx11', 'cxx', 'nvcc'])
def test_missing_thing_is_named(project, env, thing, package):
    line = project.refused(**env)
    assert thing in line.partition('apt-get install')[0]
    assert package in line.partition('apt-get install')[2]
    assert not project.venv.exists()


def test_missing_compiler_is_named(project):
    (project.bin / 'g++').unlink()
    line = project.refused()
    assert 'C++ compiler g++' in line and 'apt-get install g++' in line
    assert not project.venv.exists()


def test_all_missing_things_are_named_at_once(project):
    (project.bin / 'g++').unlink()
    line = project.refused(FAKE_HEADERS='false', FAKE_VENV='false',
                           FAKE_LIBRARIES='"libGL.so.1"')
    assert line.endswith('apt-get install python3.11-venv libgl1 g++ '
                         'python3.11-dev')


def test_build_tools_are_not_asked_for_if_a_wheel_is_kept(project):
    (project.bin / 'g++').unlink()
    project.keep_wheel()
    project.set_up(FAKE_HEADERS='false')


def test_shared_library_is_really_tried():
    probe = checks.probe_python(sys.executable, ['libnotthere.so.1'])
    missing = checks.missing_for_packages(probe)
    with pytest.raises(process.SetupError, match='libnotthere.so.1'):
        checks.require(missing)
    assert checks.probe_python(sys.executable, ['libc.so.6']
                               ).missing_libraries == []


def test_probe_tells_about_this_python():
    probe = checks.probe_python(sys.executable)
    assert probe.version == sys.version_info[:3]
    assert probe.venv
    assert checks.probe_python('/bin/false') is None


def test_other_pythons_are_refused_by_version(project):
    line = project.refused(FAKE_VERSION='3, 12, 1')
    assert 'python3 is 3.12.1' in line and 'no python3.11 on PATH' in line
    assert 'PYTHON=' in line


def test_python311_serves_if_python3_is_another(project):
    project.program('python3.11', STAND_IN)
    project.program('python3', STAND_IN.replace(
        '${FAKE_VERSION:-3, 11, 4}', '3, 13, 0'))
    probe = checks.choose_python(project.env)
    assert Path(probe.path).name == 'python3.11'


def test_python_variable_goes_first(project):
    other = project.root / 'mypython'
    shutil.copy(project.bin / 'python3', other)
    env = {**project.env, 'PYTHON': str(other)}
    assert checks.choose_python(env).path == str(other)
    assert '/nowhere/python' in project.refused(PYTHON='/nowhere/python')


def test_incomplete_copy_is_refused(project):
    (project.root / 'setup.py').unlink()
    assert 'setup.py' in project.refused()


def test_low_disk_is_refused(project, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage',
                        lambda _: usage(9 << 30, 8 << 30, 1 << 30))
    with pytest.raises(process.SetupError, match='not enough disk.*1.0 GiB'):
        setup_env.set_up(project.root, project.env)
    assert not project.venv.exists()


def test_disk_needs_add_up_on_one_file_system(tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(shutil, 'disk_usage',
                        lambda _: usage(9 << 30, 7 << 30, 2 << 30))
    checks.check_disk([(tmp_path / 'not' / 'yet', 1.9)])
    with pytest.raises(process.SetupError, match='about 3.0 GiB'):
        checks.check_disk([(tmp_path / 'a', 1.5), (tmp_path / 'b', 1.5)])


def test_read_only_folder_is_refused(project, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(tempfile, 'TemporaryFile', refuse)
    with pytest.raises(process.SetupError, match='Read-only file system'):
        setup_env.set_up(project.root, project.env)


def test_missing_network_is_told(project):
    # The real pip; a release that is not installed where the tests run.
    env = {'FAKE_PIP': sys.executable, 'TORCH_SPEC': 'torch==2.13.99',
           'PIP_RETRIES': '1', 'PIP_INDEX_URL': 'http://127.0.0.1:9/simple'}
    code, lines = project.run(**env)
    assert code == 2
    assert 'no network' in lines[-1] and 'install-torch.log' in lines[-1]
    # The environment is sound: the next run goes on with the packages.
    assert project.plan(**env) == ['packages', 'mmcv', 'package']


@pytest.mark.parametrize(('output', 'words'), [
    ('OSError: [Errno 28] No space left on device', 'the disk ran full'),
    ('ReadTimeoutError("x")\nERROR: No matching distribution', 'no network'),
    ('ERROR: no version (from versions: none)\nERROR: No matching x',
     'no network, or'),
    ('ERROR: first\nERROR: No matching distribution found for torch',
     'No matching distribution found for torch'),
    ('  error: subprocess-exited-with-error\n    error: no such file\n'
     'ERROR: Could not build wheels', 'no such file'),
    ('Killed', 'Killed'),
    ('', 'exit code 1'),
], ids=['disk', 'network', 'nothing', 'error', 'build', 'text', 'silent'])
def test_pip_fault_names_the_cause(output, words):
    fault = venv.pip_fault(process.Result(1, output, Path('pip.log')))
    assert words in fault and 'pip.log' in fault and '\n' not in fault


# Steps.


def test_kept_wheel_is_used_and_nothing_is_compiled(project):
    wheel = project.keep_wheel()
    calls = project.set_up()
    assert matching(calls, str(wheel))
    assert not matching(calls, 'bdist_wheel')
    assert not matching(calls, 'g++')


def test_torch_comes_first_and_is_held(project):
    project.keep_wheel()
    torch, rest = matching(project.set_up(), 'pip install')[:2]
    assert ' torch==2.13.0 ' in torch and ' torch==2.13.0+cpu ' in rest
    assert 'constraints.txt' in torch and 'constraints.txt' in rest
    calls = project.set_up(TORCH_SPEC='torch==2.13.0+cpu')
    assert not matching(calls, 'constraints.txt')


def test_built_wheel_is_kept(project):
    calls = project.set_up()
    assert (project.cache / KEY / WHEEL).read_text() == 'built\n'
    assert os.listdir(project.cache / KEY) == [WHEEL]
    assert matching(calls, '-x c++-header')
    (jobs, ) = matching(calls, 'jobs ')
    assert re.fullmatch(r'jobs 3 cflags -g0 -O2 -w -include \S+/pre.h', jobs)
    assert not (project.venv / 'setup-work').exists()


@pytest.mark.parametrize('env', [
    {'FAKE_COMPILER': '1'}, {'FAKE_FAIL': '-g0*bdist_wheel'},
], ids=['header', 'build'])
def test_build_falls_back_without_header(project, env):
    code, lines = project.run(**env)
    assert code == 0
    assert matching(lines, 'warning')
    assert matching(project.calls(), 'jobs ') == ['jobs 3 cflags ']
    assert (project.cache / KEY / WHEEL).exists()


def test_cuda_build_uses_no_header(project):
    project.program('nvcc', '#!/bin/sh\n')
    calls = project.set_up(FORCE_CUDA='1')
    assert not matching(calls, 'c++-header')
    assert matching(calls, 'jobs ') == ['jobs 3 cflags ']
    assert (project.cache / KEY.replace('_cpu', '_cuda')).is_dir()


def test_failed_build_names_error_and_log(project):
    code, lines = project.run(FAKE_FAIL='bdist_wheel')
    assert code == 2
    assert 'error: no luck' in lines[-1] and 'mmcv-plain.log' in lines[-1]
    assert not list(project.cache.rglob('*.whl'))
    assert project.plan() == ['mmcv', 'package']


def test_broken_kept_wheel_is_replaced(project):
    project.keep_wheel()
    env = {'FAKE_FAIL': f'--no-deps*{KEY}'}
    project.set_up(**env)
    assert (project.cache / KEY / WHEEL).read_text() == 'built\n'


def test_nothing_to_do_is_silent_and_fast(unchanged):
    unchanged.calls_file.write_text('')
    start = time.monotonic()
    assert unchanged.run() == (0, [])
    assert time.monotonic() - start < 2
    assert unchanged.calls() == []


def test_package_is_built_from_current_sources_alone(project):
    project.keep_wheel()
    for name in ('build/lib/shiftwise_mm/deleted.py',
                 'shiftwise_mm/__pycache__/cached.py',
                 'shiftwise_mm/.mim/configs/stale.py',
                 'shiftwise_mm/present.py'):
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    calls = project.set_up()
    assert 'present.py' in calls
    for name in ('deleted.py', 'cached.py', 'stale.py'):
        assert name not in calls


# Stamps.


@pytest.mark.parametrize(('change', 'steps'), [
    ('shiftwise_mm/new.py', ['package']),
    ('configs/detection/new.py', ['package']),
    ('kernels/__init__.py', ['package']),
    ('setup.py', ['package']),
    ('pyproject.toml', ['package']),
    ('model-index.yml', ['package']),
    ('requirements/dev.txt', ['packages', 'mmcv', 'package']),
    ('requirements/stock.txt', ['packages', 'mmcv', 'package']),
    ('requirements/onedl.txt', ['package']),
    ('README.md', []),
    ('tests/test_new.py', []),
    ('shiftwise_mm/__pycache__/new.pyc', []),
    ('build/lib/new.py', []),
])
def test_change_calls_for_its_steps(unchanged, change, steps):
    path = unchanged.root / change
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{before}# changed\n')
    assert unchanged.plan() == steps
    if before is None:
        path.unlink()
    else:
        path.write_text(before)
    assert unchanged.plan() == []


def test_deleted_source_calls_for_reinstall(ready):
    (ready.root / 'kernels' / '__init__.py').unlink()
    assert ready.plan() == ['package']
    assert not matching(ready.set_up(), 'mmcv')


def test_variables_call_for_their_steps(unchanged):
    assert unchanged.plan(FORCE_CUDA='1') == ['mmcv']
    assert unchanged.plan(TORCH_SPEC='torch==2.12.0') == ['packages', 'mmcv']
    assert unchanged.plan(CXX='clang++') == []


def test_moved_project_gets_a_new_venv(ready):
    moved = ready.root.with_name('moved')
    ready.root.rename(moved)
    ready.root = moved
    assert len(ready.plan()) == 4
    ready.set_up()


@pytest.mark.parametrize(('changed', 'same'), [
    ({'version': '2.1.1'}, False),
    ({'name': 'onedl-mmcv'}, False),
    ({'torch': '2.13.0+cu130'}, False),
    ({'env': {'FORCE_CUDA': '1'}}, False),
    ({'env': {'FORCE_CUDA': '0'}}, True),
    ({'env': {'TORCH_CUDA_ARCH_LIST': '9.0'}}, True),
], ids=str)
def test_wheel_key(changed, same):
    usual = {'name': 'mmcv', 'version': '2.1.0', 'torch': '2.13.0+cpu',
             'env': {}}
    assert mmcv.wheel_key(**usual) == KEY
    assert (mmcv.wheel_key(**{**usual, **changed}) == KEY) is same
    cuda = {'FORCE_CUDA': '1', 'TORCH_CUDA_ARCH_LIST': '8.6;9.0+PTX'}
    assert mmcv.wheel_key('mmcv', '2.1.0', '2.13.0', cuda).endswith(
        '_cuda-8.6-9.0+PTX')


def test_wheel_key_names_the_machine(monkeypatch):
    monkeypatch.setattr(platform, 'machine', lambda: 'other')
    assert '_other_' in mmcv.wheel_key('mmcv', '2.1.0', '2.13.0', {})


@pytest.mark.parametrize(('spec', 'env', 'may'), [
    ('torch==2.13.0', {}, True),
    ('torch==2.13.0+cpu', {}, True),
    ('torch', {}, True),
    ('torch==2.13.0+cu130', {}, False),
    ('torch==2.13.01', {}, False),
    ('torch==2.13.0', {'FORCE_CUDA': '1'}, False),
])
def test_kept_wheel_is_foreseen(project, spec, env, may):
    def foreseen(name='mmcv'):
        return mmcv.may_be_cached(project.cache, name, '2.1.0', spec, env)

    assert not foreseen()
    project.keep_wheel()
    assert foreseen() is may
    assert not foreseen('onedl-mmcv')


def test_wheel_cache_folder():
    def folder(**env):
        return str(mmcv.wheel_cache(env))

    assert folder(SHIFTWISE_WHEELS='/w', XDG_CACHE_HOME='/x') == '/w'
    assert folder(XDG_CACHE_HOME='/x') == '/x/shiftwise_mm/wheels'
    assert folder() == str(Path.home() / '.cache/shiftwise_mm/wheels')


def test_no_home_folder_is_told(monkeypatch):
    def refuse(_):
        raise RuntimeError('Could not determine home directory.')

    monkeypatch.setattr(Path, 'expanduser', refuse)
    with pytest.raises(process.SetupError, match='SHIFTWISE_WHEELS'):
        mmcv.wheel_cache({})


# The other stack.

ONEDL = {'STACK': 'onedl', 'FAKE_MMCV': 'onedl_mmcv-2.3.6'}
ONEDL_KEY = KEY.replace('mmcv-2.1.0', 'onedl-mmcv-2.3.6')


def test_the_forks_get_a_venv_of_their_own(ready):
    before = sorted(ready.venv.rglob('*'))
    ready.keep_wheel(ONEDL_KEY)
    calls = ready.set_up(**ONEDL)
    assert (ready.root / '.venv-onedl' / 'bin' / 'python').exists()
    assert sorted(ready.venv.rglob('*')) == before
    assert matching(calls, ONEDL_KEY) and not matching(calls, f'/{KEY}/')
    pinned = (ready.root / '.venv-onedl/setup-state/runtime.txt').read_text()
    assert 'onedl-mmengine==' in pinned and 'numpy==' in pinned
    assert 'mmcv' not in pinned and '\nmmengine' not in pinned
    assert ready.plan() == []


def test_the_forks_mmcv_is_built_and_kept(project):
    calls = project.set_up(**ONEDL)
    assert matching(calls, '--no-binary onedl-mmcv ')
    assert matching(calls, 'onedl-mmcv==2.3.6')
    kept, = (project.cache / ONEDL_KEY).iterdir()
    assert kept.name.startswith('onedl_mmcv-2.3.6-')


def test_unknown_stack_is_refused(project):
    line = project.refused(STACK='oendl')
    assert 'STACK=oendl' in line and 'stock and onedl' in line


def test_makefile_runs_in_the_stacks_venv():
    for words, folder in ([], '.venv'), (['STACK=stock'], '.venv'), (
            ['STACK=onedl'], '.venv-onedl'):
        done = subprocess.run(
            ['make', '-n', 'test', *words], cwd=ROOT, capture_output=True,
            text=True, check=True, env={'PATH': os.environ['PATH']})
        first, *_, last = done.stdout.splitlines()
        assert last.startswith(f'{folder}/bin/pytest ')
        assert first.startswith('STACK=')
        assert ('onedl' in first) is (folder != '.venv')


# Interruptions.


@pytest.mark.parametrize('hang', [
    '-m venv', 'pip install torch', 'runtime.txt', 'pip download',
    'bdist_wheel', 'setup-work/package'])
def test_killed_set_up_is_mended(project, hang):
    running = project.start(FAKE_HANG=hang)
    project.wait_for_call(hang)
    running.kill()
    running.communicate()
    assert project.plan()
    # What pip was writing into is not trusted.
    if hang in ('-m venv', 'pip install torch', 'runtime.txt'):
        assert len(project.plan()) == 4
    assert matching(project.set_up(), 'package')
    assert (project.cache / KEY / WHEEL).exists()


def test_interrupt_ends_the_children(project):
    running = project.start(FAKE_HANG='bdist_wheel')
    project.wait_for_call('bdist_wheel')
    start = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=10)
    assert running.returncode == 130
    assert 'interrupted' in err.splitlines()[-1]
    # It waited for the hanging child, which would have taken 20 s.
    assert time.monotonic() - start < 8
    project.set_up()


def test_lock_is_held_by_what_a_killed_set_up_left(project):
    project.keep_wheel()
    running = project.start(FAKE_ORPHAN='-m venv')
    project.wait_for_call('-m venv')
    running.kill()
    running.communicate()
    start = time.monotonic()
    code, lines = project.run()
    assert code == 0
    assert 'waiting for another set-up' in lines[0]
    assert time.monotonic() - start > 1


def test_half_made_venv_is_made_anew(project):
    project.keep_wheel()
    (project.venv / 'setup-state').mkdir(parents=True)
    (project.venv / 'bin').mkdir()
    (project.venv / 'half').touch()
    project.set_up()
    assert not (project.venv / 'half').exists()


def test_venv_without_its_python_is_made_anew(ready):
    (ready.venv / 'bin' / 'python').unlink()
    assert len(ready.plan()) == 4
    ready.set_up()


@pytest.mark.parametrize('kind', ['folder', 'file', 'dangling'])
def test_foreign_venv_is_moved_aside(project, kind):
    project.keep_wheel()
    if kind == 'folder':
        project.venv.mkdir()
        (project.venv / 'mine').touch()
    elif kind == 'file':
        project.venv.touch()
    else:
        project.venv.symlink_to('/nowhere')
    project.set_up()
    (aside, ) = (path for path in project.root.glob('.venv-*'))
    assert (aside / 'mine').exists() is (kind == 'folder')


def test_venv_behind_a_link_stays_there(project, tmp_path):
    project.keep_wheel()
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    project.venv.symlink_to(elsewhere)
    project.set_up()
    (project.venv / 'setup-state' / 'venv').unlink()
    project.set_up()
    assert project.venv.is_symlink() and (elsewhere / 'bin/python').exists()


def test_two_set_ups_take_turns(project):
    project.keep_wheel()
    first = project.start()
    second = project.start()
    lines = [running.communicate(timeout=60)[1].splitlines()
             for running in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), lines
    assert len(matching(project.calls(), '-m venv')) == 1


def test_waiting_is_told(project):
    project.keep_wheel()
    with process.locked(project.root / '.venv.lock'):
        waiting = project.start()
        line = waiting.stderr.readline()
        assert 'waiting for another set-up' in line
        assert f'(process {os.getpid()})' in line
    waiting.communicate(timeout=60)
    assert waiting.returncode == 0


# What is said.


def test_progress_counts_files():
    output = 'x\n[1/77] c++ a\n[2/77] c++ b\n'
    assert mmcv.progress(output, 70) == 'mmcv: compiled 2 of 77 files, 1m10s'
    assert mmcv.progress('', 5) == 'mmcv: preparing, 5s'


def test_pip_activity_hides_addresses():
    output = ('Looking in indexes: http://index\nCollecting a\n'
              '  Downloading http://index/files/a-1.whl (3 kB)\n')
    assert venv.pip_activity(output) == '(downloading a-1.whl)'
    assert venv.pip_activity(
        output + 'Installing collected packages: a, b\n') == '(unpacking)'
    assert venv.pip_activity('') == ''


def test_ticks_and_log(tmp_path, monkeypatch):
    monkeypatch.setattr(process, 'TICK_SECONDS', 0.05)
    seen = []
    result = process.run_logged(
        ['sh', '-c', 'echo one; sleep 0.3; echo two >&2; exit 3'],
        tmp_path / 'logs' / 'sh.log', dict(os.environ),
        on_tick=lambda output, seconds: seen.append(output))
    assert (result.code, result.output) == (3, 'one\ntwo\n')
    assert 'one\n' in seen
    assert result.log.read_text().endswith('one\ntwo\n')


def test_job_count_is_bounded_by_memory(monkeypatch):
    monkeypatch.setattr(mmcv, '_usable_cores', lambda: 8)
    monkeypatch.setattr(mmcv, '_free_gib', lambda: 4.0)
    assert mmcv.job_count({}) == 2
    assert mmcv.job_count({'MAX_JOBS': '5'}) == 5
    monkeypatch.setattr(mmcv, '_free_gib', lambda: 0.5)
    assert mmcv.job_count({}) == 1
    monkeypatch.setattr(mmcv, '_free_gib', lambda: 100.0)
    assert mmcv.job_count({}) == 8


# Files.


def test_scripts_are_python_38():
    for path in [SCRIPT, *(SCRIPT.parent / 'env_setup').glob('*.py')]:
        ast.parse(path.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize('name', ['build', 'runtime', 'dev', 'stock',
                                  'onedl'])
def test_direct_requirements_are_pinned_with_a_reason(name):
    lines = (REQUIREMENTS / f'{name}.txt').read_text().splitlines()
    for line in lines:
        assert line.startswith('#') or re.fullmatch(
            r'[\w-]+==[\w.]+  # .+', line), line


def test_constraints_do_not_repeat_pins():
    pins = {name: stamps.read_pins(REQUIREMENTS / f'{name}.txt')
            for name in ('build', 'runtime', 'dev', 'stock', 'onedl',
                         'constraints')}
    held = set(pins.pop('constraints'))
    assert all(held.isdisjoint(direct) for direct in pins.values())


def test_makefile_gives_demo_its_options():
    done = subprocess.run(
        ['make', '-n', 'demo', 'DATA=some where', 'ITERS=2'], cwd=ROOT,
        env={'PATH': os.environ['PATH']}, capture_output=True, text=True,
        check=True)
    # The shell joins the lines of a recipe.
    assert done.stdout.replace('\\\n', ' ').splitlines()[-1].split() == [
        '.venv/bin/shiftwise', 'demo', '--data', "'some", "where'",
        '--iters', "'2'"]
