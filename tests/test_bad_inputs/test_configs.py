"""Mistakes in a config: each told in one sentence before anything starts."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import project  # noqa: F401  registers everything
import tests.helpers.unformatted_configs  # noqa: F401
from project.preflight.build_errors import told_by_config
from project.preflight.config import check_config, check_runner_type
from project.preflight.config_files import read_config_file
from project.preflight.settings import stop_idle_workers
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.training import TOY_CONFIG

CASES = json.loads(
    (ROOT / 'tests' / 'data' / 'bad_inputs' / 'configs.json').read_text()
)


@pytest.fixture(scope='module')
def toy() -> Config:
    return Config.fromfile(TOY_CONFIG)


@pytest.fixture
def read(tmp_path: Path, toy: Config) -> Callable[[dict], Config]:
    """Makes the config of a case."""

    def make(given: dict[str, Any]) -> Config:
        if 'file' in given:
            path = tmp_path / given.get('name', 'my_config.py')
            path.write_text(given['file'].replace('{toy}', str(TOY_CONFIG)))
            return read_config_file(path)
        cfg = copy.deepcopy(toy)
        cfg.merge_from_dict(copy.deepcopy(given['options']))
        return cfg

    return make


def start(cfg: Config) -> list[str]:
    """What the tools and the runner do before they load data or weights."""
    check_runner_type(cfg)
    cfg = resolve_config(cfg)
    sentences = check_config(cfg)
    stop_idle_workers(cfg)
    init_default_scope('mmdet')
    with told_by_config(cfg):
        MODELS.build(cfg.model)
    return sentences


@pytest.mark.parametrize('case', CASES, ids=lambda case: case['id'])
def test_a_config(case: dict, read: Callable[[dict], Config]) -> None:
    if case['outcome'] == 'error':
        with pytest.raises(UserError) as caught:
            start(read(case['input']))
        told = str(caught.value)
        assert '\n' not in told
    else:
        sentences = start(read(case['input']))
        assert bool(sentences) == (case['outcome'] == 'warning'), sentences
        told = ' '.join(sentences)
    for word in case['words']:
        assert word in told, told
