#!/usr/bin/env bash
# Test on the GPUs, or with so many processes, of this machine:
#   ./dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# ./dist_test.sh --help tells the rest.
set -euo pipefail

ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
PYTHON=$ROOT/.venv${STACK:+-$STACK}/bin/python
[[ -x $PYTHON ]] || PYTHON=python

export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}
exec "$PYTHON" "$ROOT/tools/launch.py" test "$@"
