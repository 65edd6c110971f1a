import subprocess
import sys

import pytest
from mmengine.registry import Registry

from project.utils.registration import add_location
from tests.helpers.configs import ROOT

IMPORT_ALONE = """
import sys
import project
loaded = {m for m in sys.modules if m.startswith(('mmdet.models', 'mmcv.ops'))}
assert not loaded, loaded
assert 'project.models' not in sys.modules

from mmdet.registry import MODELS
from mmengine.registry import RUNNERS
assert MODELS.get('HDETR') is project.models.detectors.HDETR
assert RUNNERS.get('DETRRunner') is project.engine.DETRRunner
"""


def test_importing_the_package_loads_no_models() -> None:
    """They come with the first look-up, so the import is mmdet's own."""
    result = subprocess.run(
        [sys.executable, '-c', IMPORT_ALONE],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_a_location_is_imported_at_the_first_look_up() -> None:
    registry = Registry('toy', scope='toy')
    sys.modules.pop('tests.helpers.registered_late', None)
    for _ in range(2):
        add_location([registry], 'tests.helpers.registered_late')
    assert 'tests.helpers.registered_late' not in sys.modules
    registry.get('anything')
    assert 'tests.helpers.registered_late' in sys.modules


def test_a_registry_that_was_asked_before_gets_it_at_once() -> None:
    registry = Registry(
        'toy', scope='toy', locations=['tests.helpers.configs']
    )
    registry.get('anything')
    sys.modules.pop('tests.helpers.registered_late', None)
    add_location([registry], 'tests.helpers.registered_late')
    assert 'tests.helpers.registered_late' in sys.modules


@pytest.mark.parametrize('package', ['mmdet', 'mmengine'])
def test_initializers_are_found_before_any_model(package: str) -> None:
    """Of a config for training alone nothing else is looked up before."""
    code = (
        'import project\n'
        f'from {package}.registry import WEIGHT_INITIALIZERS\n'
        'assert WEIGHT_INITIALIZERS.get("PyTorchInit")'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
