#!/usr/bin/env bash
# Train under Slurm, with one task for each GPU:
#   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of
#   tools/train.py]
# Variables: GPUS of all machines (default 8), GPUS_PER_NODE (8, or GPUS if
# that is less), CPUS_PER_TASK (5), PORT (drawn), SRUN_ARGS (further options).
set -euo pipefail

if (($# < 4)); then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [OPTION ...]" >&2
    exit 2
fi
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/slurm_run.sh" \
    "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
