#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share: run a script of this folder in
# one Slurm task for each GPU.
#   slurm_run.sh PARTITION JOB_NAME SCRIPT [argument ...]
set -euo pipefail

PARTITION=$1 JOB_NAME=$2 SCRIPT=$3
shift 3

GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
CPUS_PER_TASK=${CPUS_PER_TASK:-5}

TOOLS=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
ROOT=$(dirname "$TOOLS")
PYTHON=$ROOT/.venv${STACK:+-$STACK}/bin/python
[[ -x $PYTHON ]] || PYTHON=python

export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
# Two jobs may meet on one machine, so each draws its own port.
export MASTER_PORT=${PORT:-$((20000 + RANDOM % 10000))}
# SRUN_ARGS is split at its spaces.
# shellcheck disable=SC2086
exec srun -p "$PARTITION" \
    --job-name="$JOB_NAME" \
    --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="$CPUS_PER_TASK" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "$PYTHON" -u "$TOOLS/$SCRIPT" --launcher=slurm "$@"
