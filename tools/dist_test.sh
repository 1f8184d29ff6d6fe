#!/usr/bin/env bash
# Tests by several processes, one a GPU; without a GPU, on the CPU:
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
# On several machines run it on each, with NNODES, NODE_RANK, MASTER_ADDR and
# PORT set. PYTHON is the interpreter, by default python.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo 'dist_test.sh: usage: dist_test.sh CONFIG CHECKPOINT PROCESSES' \
    '[options]' >&2
  exit 2
fi
config=$1 checkpoint=$2 processes=$3
shift 3
# By itself on a machine, torchrun finds a free port.
place=(--standalone --local-addr 127.0.0.1)
if [ "${NNODES:-1}" != 1 ] || [ -n "${PORT:-}" ]; then
  place=(--nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}"
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run "${place[@]}" \
  --nproc_per_node "$processes" "$(dirname "$0")/test.py" "$config" \
  "$checkpoint" --launcher pytorch "$@"
