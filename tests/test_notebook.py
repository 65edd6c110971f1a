"""The notebook of docs/notebooks runs from its first cell to its last."""

import ast
import json
import re
import subprocess
from typing import Any

from tests.helpers.configs import ROOT
from tests.helpers.training import tool_env

NOTEBOOK = ROOT / 'docs/notebooks/from_folder_to_report.ipynb'
SMALL = dict(IMAGES=8, EPOCHS=1)


def cells() -> list[tuple[str, list[str]]]:
    """The code of each cell, and its tags."""
    content = json.loads(NOTEBOOK.read_text())
    return [
        (''.join(cell['source']), cell['metadata'].get('tags', []))
        for cell in content['cells']
        if cell['cell_type'] == 'code'
    ]


def shell(line: str, names: dict[str, Any], env: dict[str, str]) -> str:
    """Run what a cell gives to the shell, as IPython does."""
    command = line.removeprefix('!').format(**names)
    result = subprocess.run(
        command,
        shell=True,
        env=tool_env(**env),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_cells_are_python_or_commands() -> None:
    for code, _ in cells():
        ast.parse(re.sub(r'^!.*', '', code, flags=re.M))
    assert sum(code.startswith('!') for code, _ in cells()) == 3


def test_from_folder_to_report(tmp_path, monkeypatch, warm_env) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed = []
    for code, tags in cells():
        if code.startswith('!'):
            printed.append(shell(code, names, warm_env))
        else:
            exec(compile(code, str(NOTEBOOK), 'exec'), names)
        if 'parameters' in tags:
            assert names.keys() >= SMALL.keys()
            names.update(SMALL)
    check, train, detect = printed
    assert 'Nothing is wrong with the data.' in check
    assert 'Epoch(train)' not in check
    assert 'Epoch(train) [1]' in train
    assert 'val: images 2, detections' in detect
    assert names['detections'].size[0] <= 160
