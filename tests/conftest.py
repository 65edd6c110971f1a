"""What all tests share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
OWN_GOLDENS = ROOT / 'tests' / 'data' / 'goldens'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        '--goldens',
        type=Path,
        default=OWN_GOLDENS,
        help='folder of the goldens that tests/test_goldens.py checks',
    )

    parser.addoption(
        '--trajectories',
        type=Path,
        default=ROOT.parent / 'shared' / 'goldens' / 'trajectories',
        help='folder of the trainings that tests/test_trajectories.py repeats',
    )

    parser.addoption(
        '--demo-checkpoint',
        type=Path,
        help='what `make demo` has trained; by default '
        'tests/test_apis/test_finetuning_photographs.py trains it',
    )

    parser.addoption(
        '--device',
        default='cpu',
        help='where tests/test_goldens.py runs the detectors, such as cuda',
    )


@pytest.fixture(autouse=True)
def no_progress() -> None:
    """Forget how far an earlier test's training had come."""
    info = MessageHub.get_current_instance().runtime_info
    for key in ('iter', 'max_iters'):
        info.pop(key, None)


@pytest.fixture(scope='session')
def warm_env(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, str]]:
    """Variables with which ``python`` need not import the libraries."""
    from tests.helpers.warm_python import warm_python

    with warm_python(tmp_path_factory.mktemp('bin')) as folder:
        others = (str(Path(sys.executable).parent), os.environ['PATH'])
        yield dict(
            PATH=os.pathsep.join((str(folder), *others)),
            STACK='warm',  # for which no .venv is: scripts look into PATH
        )


@pytest.fixture
def mmdet_scope() -> Iterator[None]:
    """Look names of registries up as a runner does."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    return request.config.getoption('device')


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if 'golden_stem' in metafunc.fixturenames:
        from tests.helpers.goldens import find_goldens

        folder = metafunc.config.getoption('goldens')
        stems = find_goldens(folder)
        names = [str(stem.relative_to(folder)) for stem in stems]
        metafunc.parametrize('golden_stem', stems, ids=names)
    if 'trajectory_stem' in metafunc.fixturenames:
        from tests.helpers.trajectories import find_trajectories

        stems = find_trajectories(metafunc.config.getoption('trajectories'))
        metafunc.parametrize(
            'trajectory_stem', stems, ids=[stem.name for stem in stems]
        )
