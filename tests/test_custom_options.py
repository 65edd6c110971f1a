"""Each commented line of configs/custom works once it is uncommented."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS, VISBACKENDS

from project.preflight.config import check_config
from tests.helpers.configs import CONFIGS, ROOT

pytestmark = pytest.mark.usefixtures('mmdet_scope')

FOLDER = CONFIGS / 'custom'
COMMENTED = re.compile(r'^    # (dict\(.*\),)$', re.MULTILINE)
OFFERED = {
    path: COMMENTED.findall(path.read_text())
    for path in sorted(FOLDER.glob('*.py'))
    if 'visualizer' in path.read_text()
}
FIRST, *OTHERS = OFFERED
LINES = OFFERED[FIRST]


def type_of(line: str) -> str:
    return re.search(r"type='(\w+)'", line)[1]


def uncommented(path: Path, lines: list[str], folder: Path) -> Config:
    text = path.read_text().replace("'../", f"'{CONFIGS}/")
    for line in lines:
        text = text.replace(f'# {line}', line)
    (folder / 'mine.py').write_text(text)
    cfg = Config.fromfile(folder / 'mine.py')
    assert check_config(cfg) == []
    return cfg


@pytest.mark.parametrize('path', OTHERS, ids=lambda path: path.stem)
def test_all_lines_work_together(path: Path, tmp_path: Path) -> None:
    assert OFFERED[path] == LINES
    cfg = uncommented(path, LINES, tmp_path)
    assert len(cfg.custom_hooks) == 3
    assert len(cfg.visualizer.vis_backends) == 4


@pytest.mark.parametrize('line', LINES, ids=type_of)
def test_a_line_works_alone(line: str, tmp_path: Path) -> None:
    cfg = uncommented(FIRST, [line], tmp_path)
    kind = type_of(line)
    if kind.endswith('Hook'):
        (hook,) = [x for x in cfg.custom_hooks if x.type == kind]
        assert type(HOOKS.build(hook)).__name__ == kind
    else:
        backend = cfg.visualizer.vis_backends[-1]
        assert backend.type == kind
        VISBACKENDS.build(dict(backend, save_dir=str(tmp_path)))


def test_the_lines_are_documented() -> None:
    assert len(OTHERS) == 2
    assert [type_of(line) for line in LINES] == [
        'EMAHook',
        'ValidationLossHook',
        'EarlyStoppingHook',
        'TensorboardVisBackend',
        'WandbVisBackend',
        'MLflowVisBackend',
    ]
    docs = (ROOT / 'docs' / 'training.md').read_text()
    assert not [x for x in LINES if type_of(x) not in docs]


@pytest.mark.parametrize('library', ['tensorboard', 'wandb', 'mlflow'])
def test_a_tracker_writes(library: str, tmp_path: Path, monkeypatch) -> None:
    if not find_spec(library):
        pytest.skip(f'{library} is not installed')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.chdir(tmp_path)
    (line,) = (x for x in LINES if library in type_of(x).lower())
    cfg = Config.fromstring(f'x = {line.rstrip(",")}', '.py').x
    backend = VISBACKENDS.build(dict(cfg, save_dir=str(tmp_path)))
    backend.add_config(Config(dict(lr=1, work_dir=str(tmp_path))))
    backend.add_scalars(dict(loss=0.5), step=1)
    backend.close()
    written = [x for x in tmp_path.rglob('*') if x.is_file()]
    assert written
