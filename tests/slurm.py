"""Stands in for slurm: the tasks of a job on this machine."""
from pathlib import Path

# As srun: one process a task, with its variables.
SRUN = """#!/usr/bin/env bash
while [[ $1 == -* ]]; do
  echo "srun: $1"
  [ "$1" = -p ] && shift
  case $1 in --ntasks=*) tasks=${1#*=};; esac
  shift
done
for ((i = 0; i < tasks; i++)); do
  SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=$tasks \\
    SLURM_NODELIST='node[1-2]' "$@" &
  children="${children:-} $!"
done
for child in $children; do wait $child || exit; done
"""
SCONTROL = """#!/usr/bin/env bash
[ "$*" = 'show hostname node[1-2]' ] || exit 1
printf '127.0.0.1\\nnode2\\n'
"""


def install_slurm(folder: Path) -> None:
    """``srun`` and ``scontrol`` in a folder of ``PATH``."""
    for name, text in ('srun', SRUN), ('scontrol', SCONTROL):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
