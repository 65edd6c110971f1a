"""Every tool answers --help at once: without importing torch or mmdet."""

import subprocess
import sys

import pytest

from tests.helpers.configs import ROOT
from tests.helpers.training import tool_env

TOOLS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / 'tools').rglob('*.py')
    if not path.name.startswith('_')
    and path.parent.name not in ('setup', 'reference')
    and 'method_template' not in path.parts
)
# Runs a script as python does, then tells what it has imported.
RUN = """
import runpy, sys
from pathlib import Path
path = Path(sys.argv[1])
sys.argv = [*sys.argv[1:], '--help']
sys.path[0] = str(path.parent)
try:
    runpy.run_path(str(path), run_name='__main__')
except SystemExit as end:
    heavy = {'torch', 'mmdet', 'mmcv', 'cv2', 'matplotlib'}
    heavy &= sys.modules.keys()
    print(f'status {end.code} heavy {sorted(heavy)}')
"""


@pytest.mark.parametrize('tool', TOOLS)
def test_help_imports_nothing_heavy(tool: str) -> None:
    words = ['train'] if tool.endswith('launch.py') else []
    result = subprocess.run(
        [sys.executable, '-c', RUN, str(ROOT / tool), *words],
        capture_output=True,
        text=True,
        env=tool_env(),
        timeout=60,
    )
    assert result.stdout.startswith('usage:'), result.stderr
    assert '(default: False)' not in result.stdout, 'of a flag'
    assert result.stdout.endswith('status 0 heavy []\n'), result.stdout[-80:]
