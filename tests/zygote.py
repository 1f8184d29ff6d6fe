"""Forks programs off a process that has imported torch, mmengine and mmcv.

Importing them is half of what a short program takes. A program started here,
by :func:`processes.run_forked`, is a process of its own all the same, with
its own arguments, environment, folder, output and end; nothing of
shiftwise_mm, mmdet and mmseg has been imported before.
"""
from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import types
from pathlib import Path

import numpy as np

# For their time only: each program imports what it uses as ever.
for module in ('cv2', 'matplotlib.pyplot', 'mmengine.runner',
               'mmengine.visualization', 'mmcv.ops', 'mmcv.transforms'):
    with contextlib.suppress(ModuleNotFoundError):  # not all have mmcv
        importlib.import_module(module)


def serve(requests: socket.socket) -> list[str]:
    """Forks for each request; returns in the forks, with their command."""
    while True:
        message, files, *_ = socket.recv_fds(requests, 1 << 20, 3)
        if not message:  # those who asked are gone
            sys.exit()
        if not os.fork():
            break
        for file in files:
            os.close(file)
    requests.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *output, report = files
    pid = os.fork()
    if pid:  # waits for the other and tells its exit code
        with contextlib.suppress(BrokenPipeError):  # nobody waits any more
            os.write(report, b'%d\n' % pid)
            _, status = os.waitpid(pid, 0)
            os.write(report, b'%d\n' % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.close(report)
    return become(json.loads(message), output)


def become(request: dict, output: list[int]) -> list[str]:
    """Makes this process what is asked for."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for target, source in enumerate((nothing, *output)):
        os.dup2(source, target)
        os.close(source)
    os.chdir(request['cwd'])
    os.environ.clear()
    os.environ.update(request['env'])
    sys.path[:0] = filter(None, os.environ.get('PYTHONPATH', '').split(':'))
    np.random.seed()  # each fork would draw the same
    return request['command']


def run(command: list[str]) -> None:
    """As ``python -P COMMAND``."""
    main = sys.modules['__main__'] = types.ModuleType('__main__')
    if command[0] == '-c':
        source = command.pop(1)
    else:
        main.__file__ = command[0]
        source = Path(command[0]).read_text('utf-8')
    sys.argv = command
    exec(compile(source, command[0], 'exec'), vars(main))


if __name__ == '__main__':
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # none is waited for
    runpy.run_path(Path(__file__).with_name('remembered.py'))['remember_all']()
    gc.freeze()
    run(serve(socket.socket(fileno=int(sys.argv[1]))))
