#!/usr/bin/env bash
# Detect on the GPUs, or with so many processes, of this machine:
#   ./dist_detect.sh CHECKPOINT SOURCE GPUS [options of tools/detect.py]
# ./dist_detect.sh --help tells the rest.
set -euo pipefail

ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
PYTHON=$ROOT/.venv${STACK:+-$STACK}/bin/python
[[ -x $PYTHON ]] || PYTHON=python

export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" "$ROOT/tools/launch.py" detect "$@"
