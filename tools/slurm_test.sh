#!/usr/bin/env bash
# Test under Slurm, with one task for each GPU:
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of
#   tools/test.py]
# Variables: as for slurm_train.sh.
set -euo pipefail

if (($# < 4)); then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [OPTION ...]" >&2
    exit 2
fi
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/slurm_run.sh" \
    "$1" "$2" test.py "${@:3}"
