"""The kernels of a GPU, compiled for Vulkan: on Mesa's software driver.

Taichi is initialised once a process, so the tests of test_gpu_kernels.py run
in one of their own. See docs/gpu.md for what has to be installed.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

FOLDERS = ('/usr/share/vulkan/icd.d', '/usr/local/share/vulkan/icd.d',
           '/etc/vulkan/icd.d')
PROBE = '''
import taichi as ti
ti.init(arch=ti.vulkan, enable_fallback=False, log_level=ti.ERROR)
'''


def environment(cache: Path) -> dict[str, str]:
    """Mesa's software driver chosen, where there are several."""
    env = dict(os.environ, TI_SKIP_VERSION_CHECK='ON',
               ENABLE_TAICHI_HEADER_PRINT='0', XDG_CACHE_HOME=str(cache),
               TI_OFFLINE_CACHE_FILE_PATH=str(cache / 'taichi'))
    drivers = [str(path) for folder in FOLDERS
               for path in sorted(Path(folder).glob('lvp_icd*.json'))]
    if drivers:
        env.setdefault('VK_ICD_FILENAMES', drivers[0])
    return env


def run(cache: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-P', *arguments], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=300, env=environment(cache), cwd=ROOT)


def test_on_vulkan(monkeypatch, tmp_path):
    probe = run(tmp_path, '-c', PROBE)
    if probe.returncode:
        why = (probe.stdout.strip().splitlines() or ['no message'])[-1]
        why = (f'Taichi cannot use Vulkan ({why[:200]}): apt-get install '
               'mesa-vulkan-drivers libvulkan1, see docs/gpu.md')
        if os.environ.get('SHIFTWISE_REQUIRE_VULKAN') == '1':
            pytest.fail(why)
        pytest.skip(why)
    monkeypatch.setenv('SHIFTWISE_TEST_ARCH', 'vulkan')
    tests = Path(__file__).with_name('test_gpu_kernels.py')
    done = run(tmp_path, '-m', 'pytest', '--import-mode=importlib', '-q',
               '-p', 'no:cacheprovider', '--basetemp',
               str(tmp_path / 'inner'), str(tests))
    assert done.returncode == 0, done.stdout
    passed = re.search(r'^(\d+) passed', done.stdout, re.MULTILINE)
    assert passed and int(passed[1]) > 50, done.stdout
    assert 'skipped' not in done.stdout, done.stdout
