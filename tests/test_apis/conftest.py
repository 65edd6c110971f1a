import pytest

from project.apis import Detector, load_detector
from tests.helpers.trained import write_trained
from tests.helpers.training import toy_data

__all__ = ['toy_data']


@pytest.fixture(scope='session')
def checkpoint(toy_data, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp('trained') / 'epoch_1.pth'
    write_trained(path, toy_data)
    return str(path)


@pytest.fixture(scope='session')
def detector(checkpoint) -> Detector:
    return load_detector(checkpoint, device='cpu')


@pytest.fixture(scope='session')
def image(toy_data) -> str:
    return str(sorted((toy_data / 'val').iterdir())[0])
