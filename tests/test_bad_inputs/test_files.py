"""Commands and work dirs, from tests/data/bad_inputs/files.json.

``tool`` and ``arguments`` are a command line, which is read as far as it can
be before anything heavy is imported; ``{config}`` and the like stand for what
the fixture ``places`` makes. ``work_dir`` is the state of a folder that a
training is to begin in, with ``options`` of its config.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from mmengine.registry import RUNNERS

import project  # noqa: F401  registers the runner
from project.utils.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.training import TOY_CONFIG, load_tool, toy_config

CASES = json.loads((ROOT / 'tests/data/bad_inputs/files.json').read_text())
COMMANDS = [case for case in CASES if 'tool' in case['input']]
WORK_DIRS = [case for case in CASES if 'work_dir' in case['input']]


def by_id(case: dict) -> str:
    return case['id']


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    file, folder = tmp_path / 'file', tmp_path / 'folder'
    file.touch()
    folder.mkdir()
    return dict(config=TOY_CONFIG, checkpoint=file, file=file, folder=folder)


@pytest.mark.parametrize('case', COMMANDS, ids=by_id)
def test_a_command(
    case: dict,
    places: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    words = [word.format(**places) for word in case['input']['arguments']]
    monkeypatch.setattr('sys.argv', ['tool.py', *words])
    tool = load_tool(case['input']['tool'])
    status = 0
    try:
        tool.parse_args()
    except SystemExit as ended:
        status = ended.code
    output = capfd.readouterr()
    if case['outcome'] == 'works':
        assert status == 0, output.err
        said = output.out
    else:
        assert status == 2
        said = output.err.splitlines()[-1]
        assert said.startswith('tool.py: error: ')
    for word in case['words']:
        assert word in said


def prepare(state: str, root: Path) -> tuple[Path, dict[str, Any]]:
    """Make a work dir, and name further settings."""
    work_dir, options = root / 'work', {}
    if state == 'a file':
        work_dir.touch()
    elif state == 'below a file':
        (root / 'file').touch()
        work_dir = root / 'file' / 'work'
    elif state.startswith('/'):
        work_dir = Path(state)
    else:
        work_dir.mkdir()
    if state == 'out_dir below a file':
        (root / 'file').touch()
        options['default_hooks__checkpoint__out_dir'] = str(root / 'file')
    for name in {
        'trained': ('epoch_1.pth', 'last_checkpoint'),
        'marker alone': ('last_checkpoint',),
        'best alone': ('best_coco_bbox_mAP_epoch_1.pth',),
        'own weights': ('start.pth', 'epoch_notes.txt'),
        'logs': ('20240101_000000.log',),
    }.get(state, ()):
        (work_dir / name).touch()
    if state == 'marker is a folder':
        (work_dir / 'last_checkpoint').mkdir()
    return work_dir, options


@pytest.mark.parametrize('case', WORK_DIRS, ids=by_id)
def test_a_training_begins(case: dict, toy_data: Path, tmp_path: Path) -> None:
    """As far as the work dir is looked at; nothing is trained."""
    given = case['input']
    work_dir, options = prepare(given['work_dir'], tmp_path)
    before = sorted(p.name for p in tmp_path.rglob('*') if p.is_file())

    def begin() -> None:
        cfg = toy_config(
            toy_data,
            work_dir,
            log_level='WARNING',
            **options,
            **given['options'],
        )
        runner = RUNNERS.build(cfg)
        with runner.training_in_work_dir():
            runner.find_resumed()

    if case['outcome'] == 'works':
        begin()
    else:
        with pytest.raises(UserError) as told:
            begin()
        for word in case['words']:
            assert word in str(told.value)
    after = {p.name for p in tmp_path.rglob('*') if p.is_file()}
    assert after.issuperset(before)
