"""The detector as a stage of Ray Data, on a Ray of this machine."""

import os

import numpy as np
import pytest
from PIL import Image

from project.apis.ray_data import RayDetector
from project.utils.errors import UserError
from tests.helpers.killed_once import KilledOnce
from tests.helpers.training import tool_env


@pytest.fixture(scope='module')
def stage(checkpoint) -> RayDetector:
    pytest.importorskip('pyarrow')
    return RayDetector(checkpoint, score_thr=0.8, device='cpu')


def test_a_batch_gives_a_row_for_each_image(
    stage, detector, image, tmp_path
) -> None:
    (tmp_path / 'broken.png').write_text('broken')
    broken = str(tmp_path / 'broken.png')
    batch = dict(path=np.array([image, broken]), number=np.array([7, 8]))
    first, second = stage(batch).to_pylist()
    expected = detector(image, score_thr=0.8).to_dict()
    assert first['number'] == 7
    assert first['names'] == expected['names'] != []
    np.testing.assert_allclose(first['boxes'], expected['boxes'], atol=1e-3)
    assert first['error'] is None
    assert second['path'] == broken
    assert second['boxes'] is None
    assert broken in second['error']


def test_pixels_give_what_their_file_gives(stage, image) -> None:
    pixels = np.asarray(Image.open(image).convert('RGB'))
    (of_pixels,) = stage(dict(image=pixels[None])).to_pylist()
    (of_file,) = stage(dict(path=np.array([image]))).to_pylist()
    del of_file['path']
    assert of_pixels == of_file
    with pytest.raises(UserError, match='expected image or path'):
        stage(dict(pixels=pixels))


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(
    checkpoint, detector, toy_data, tmp_path
) -> None:
    ray = pytest.importorskip('ray')
    data = pytest.importorskip('ray.data')
    images = sorted(map(str, (toy_data / 'train').iterdir()))
    paths = []
    for number in range(48):
        path = tmp_path / f'{number:02}.png'
        path.symlink_to(images[number % len(images)])
        paths.append(str(path))
    variables = tool_env(PYTHONPATH=os.environ.get('PYTHONPATH', ''))
    paths_of_workers = dict(PYTHONPATH=variables['PYTHONPATH'])
    ray.init(
        num_cpus=4,  # two workers, and tasks that read and write
        include_dashboard=False,
        log_to_driver=False,
        runtime_env=dict(env_vars=paths_of_workers),
    )
    try:
        dataset = data.from_items([dict(path=path) for path in paths])
        found = dataset.repartition(12).map_batches(
            KilledOnce,
            fn_constructor_args=[str(tmp_path / 'killed'), checkpoint],
            fn_constructor_kwargs=dict(score_thr=0.8, device='cpu'),
            batch_size=2,
            concurrency=2,
        )
        found.write_parquet(str(tmp_path / 'found'))
        rows = data.read_parquet(str(tmp_path / 'found')).take_all()
    finally:
        ray.shutdown()
    assert (tmp_path / 'killed').exists()
    assert sorted(row['path'] for row in rows) == paths
    for row in rows:
        expected = detector(row['path'], score_thr=0.8)
        assert list(row['names']) == list(expected.names)
        np.testing.assert_allclose(row['scores'], expected.scores, atol=1e-5)
