#!/usr/bin/env bash
# Trains by several processes, one a GPU; without a GPU, on the CPU:
#   tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
# On several machines run it on each, with NNODES, NODE_RANK, MASTER_ADDR and
# PORT set. PYTHON is the interpreter, by default python.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo 'dist_train.sh: usage: dist_train.sh CONFIG PROCESSES [options]' >&2
  exit 2
fi
config=$1 processes=$2
shift 2
# By itself on a machine, torchrun finds a free port.
place=(--standalone --local-addr 127.0.0.1)
if [ "${NNODES:-1}" != 1 ] || [ -n "${PORT:-}" ]; then
  place=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}"
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run "${place[@]}" \
  --nproc_per_node "$processes" "$(dirname "$0")/train.py" "$config" \
  --launcher pytorch "$@"
