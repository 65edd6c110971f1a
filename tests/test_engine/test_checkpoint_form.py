# Copyright (c) mmdetr authors. All rights reserved.
"""What our trainings save is read by any ``torch.load``, and resumes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import mmdet
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import RUNNERS
from mmengine.runner import CheckpointLoader

from project.checkpoints.logged_history import make_plain, restore_history
from tests.helpers.training import toy_config

PUBLISH = Path(mmdet.__file__).parent / '.mim/tools/model_converters'


@pytest.fixture(scope='module')
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an epoch with an average of the weights saves."""
    work_dir = tmp_path_factory.mktemp('trained')
    RUNNERS.build(epochs(1, toy_data, work_dir)).train()
    return work_dir / 'epoch_1.pth'


def epochs(count: int, toy_data: Path, work_dir: Path, **options: Any) -> Any:
    cfg = toy_config(
        toy_data,
        work_dir,
        train_cfg__max_epochs=count,
        default_hooks__checkpoint__save_best='coco/bbox_mAP',
        custom_hooks=[dict(type='EMAHook')],
        **options,
    )
    return cfg


def test_no_process_needs_to_know_the_types_in_it(trained: Path) -> None:
    published = trained.with_name('published.pth')
    subprocess.run(
        [sys.executable, PUBLISH / 'publish_model.py', trained, published],
        check=True,
        cwd=trained.parent,
    )
    (path,) = trained.parent.glob('published-*.pth')
    load = f'import torch; print(len(torch.load({str(path)!r})["state_dict"]))'
    result = subprocess.run(
        [sys.executable, '-c', load], capture_output=True, text=True
    )
    assert int(result.stdout) > 100, result.stderr


def test_mmengine_finds_its_history(trained: Path) -> None:
    hub = CheckpointLoader.load_checkpoint(str(trained))['message_hub']
    history = hub['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.mean() > 0
    plain = torch.load(trained)['message_hub']['log_scalars']['train/loss']
    np.testing.assert_array_equal(plain['values'], history.data[0])
    assert plain['values'].dtype == torch.float64


def test_a_training_goes_on_with_its_history(
    trained: Path, toy_data: Path
) -> None:
    before = torch.load(trained)['message_hub']['log_scalars']
    cfg = epochs(2, toy_data, trained.parent, resume=True)
    RUNNERS.build(cfg).train()
    after = torch.load(trained.with_name('epoch_2.pth'))['message_hub']
    for name, history in before.items():
        if name.startswith('train/'):
            longer = after['log_scalars'][name]['values']
            assert len(longer) == 2 * len(history['values'])
            assert torch.equal(longer[: len(longer) // 2], history['values'])


def test_the_average_takes_what_fits(trained: Path, toy_data: Path) -> None:
    """The hook that keeps it loads the checkpoint as well."""
    options = dict(model__num_queries=12, load_from=str(trained))
    cfg = epochs(1, toy_data, trained.parent / 'part', **options)
    cfg.load_partially = True
    cfg.optim_wrapper.optimizer.lr = 0.0
    model = RUNNERS.build(cfg).train()
    assert len(model.query_embedding.weight) == 22
    expected = torch.load(trained)['state_dict']['level_embed']
    saved = torch.load(trained.parent / 'part' / 'epoch_1.pth')
    torch.testing.assert_close(saved['state_dict']['level_embed'], expected)
    (log,) = trained.parent.glob('part/*/*.log')
    assert ' tensors are taken from ' in log.read_text()


def test_only_what_is_about_the_training_changes() -> None:
    history = HistoryBuffer([1.0, 2.0], [1, 3])
    best = np.float64(0.5)
    hub = dict(log_scalars=dict(loss=history), runtime_info=dict(best=best))
    meta = dict(classes=('a', 'b'), counts=[np.int64(3), None], flag=True)
    checkpoint = dict(meta=meta, message_hub=hub, state_dict=dict(a=best))
    make_plain(checkpoint)
    assert hub['runtime_info']['best'] is best, 'the training goes on with it'
    assert checkpoint['state_dict']['a'] is best
    assert type(checkpoint['message_hub']['runtime_info']['best']) is float
    assert checkpoint['meta'] == dict(
        classes=('a', 'b'), counts=[3, None], flag=True
    )
    assert type(checkpoint['meta']['counts'][0]) is int

    restore_history(checkpoint)
    restored = checkpoint['message_hub']['log_scalars']['loss']
    np.testing.assert_array_equal(restored.data, history.data)
    assert restored.statistics('mean') == 0.75
    for other in ({}, dict(message_hub=None), dict(message_hub=dict(a=1))):
        restore_history(other)
