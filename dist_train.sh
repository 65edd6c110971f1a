#!/usr/bin/env bash
# Train on the GPUs, or with so many processes, of this machine:
#   ./dist_train.sh CONFIG GPUS WORK_DIR [options of tools/train.py]
# ./dist_train.sh --help tells the rest.
set -euo pipefail

ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
PYTHON=$ROOT/.venv${STACK:+-$STACK}/bin/python
[[ -x $PYTHON ]] || PYTHON=python

export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" "$ROOT/tools/launch.py" train "$@"
