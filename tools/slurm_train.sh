#!/usr/bin/env bash
# Trains as a slurm job, one task a GPU:
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]
# GPUS (in all) and GPUS_PER_NODE are 8 by default, CPUS_PER_TASK is 5;
# SRUN_ARGS are further options of srun, PYTHON is the interpreter.
set -euo pipefail
if [ $# -lt 4 ]; then
  echo 'slurm_train.sh: usage: slurm_train.sh PARTITION JOB_NAME CONFIG' \
    'WORK_DIR [options]' >&2
  exit 2
fi
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
per_node=${GPUS_PER_NODE:-8}
# Unquoted: SRUN_ARGS holds several options.
# shellcheck disable=SC2086
exec srun -p "$partition" --job-name="$job" --gres="gpu:$per_node" \
  --ntasks="${GPUS:-8}" --ntasks-per-node="$per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
  ${SRUN_ARGS:-} "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" \
  --work-dir "$work_dir" --launcher slurm "$@"
