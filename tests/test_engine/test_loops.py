"""A resumed training goes on with the images that would have come next."""

import uuid
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from mmengine.dataset import sampler as mmengine_sampler
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from project.engine.runner import loops
from project.engine.runner.loops import LateBatchSampler

NUM_IMAGES = 13
WORKERS = {
    '0': dict(num_workers=0),
    '2': dict(num_workers=2, persistent_workers=False),
    '2-persistent': dict(num_workers=2, persistent_workers=True),
    '4-persistent': dict(num_workers=4, persistent_workers=True),
}
# How batches are made: the batch sampler, and drop_last.
BATCHES = {
    'plain': (None, False),
    'drop_last': (None, True),
    'by_shape': ('AspectRatioBatchSampler', False),
}
QUICK = {
    ('0', 'by_shape', None),
    ('2', 'plain', 1),
    ('2-persistent', 'drop_last', None),
    ('4-persistent', 'by_shape', 1),
}
"""Of all ways, those that are tried every time."""
EVERY_WAY = [
    pytest.param(
        workers,
        batches,
        rank,
        marks=() if (workers, batches, rank) in QUICK else pytest.mark.slow,
    )
    for workers in WORKERS
    for batches in BATCHES
    for rank in (None, 1)
]


class Images(Dataset):
    """Images that are their number, every third upright."""

    metainfo: ClassVar[dict] = dict(classes=('thing',))

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, index: int) -> int:
        return index

    def get_data_info(self, index: int) -> dict[str, int]:
        return dict(width=1 if index % 3 == 0 else 3, height=2)


class Recorder(BaseModel):
    """Notes the images of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.batches: list[list[int]] = []

    def train_step(self, data: list[int], optim_wrapper: Any) -> dict:
        self.batches.append([int(index) for index in data])
        return dict(loss=torch.zeros(()))

    def forward(self, *args, **kwargs) -> None:
        raise NotImplementedError


def train(
    work_dir: Path,
    train_cfg: dict,
    *,
    resume_from: Path | None = None,
    randomness: dict | None = None,
    dataset: Dataset | None = None,
    loader: DataLoader | None = None,
    **dataloader: Any,
) -> list[list[int]]:
    """Train in mmengine's own Runner, and keep a checkpoint of each step.

    Returns:
        The images of each step.
    """
    is_epochs = 'Epoch' in train_cfg['type']
    sampler = 'DefaultSampler' if is_epochs else 'InfiniteSampler'
    model = Recorder()
    runner = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader
        or dict(
            dict(
                dataset=dataset or Images(),
                sampler=dict(type=sampler),
                batch_size=3,
            ),
            **dataloader,
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)
        ),
        custom_hooks=[CheckpointHook(interval=1)] if is_epochs else [],
        randomness=randomness or dict(seed=None),
        load_from=resume_from and str(resume_from),
        resume=resume_from is not None,
        experiment_name=uuid.uuid4().hex,
        log_level='ERROR',
        default_scope='mmdet',
    )
    runner.train()
    # Workers end at once unless their iterator is left to the collection of
    # garbage, which may take their queues first.
    runner.train_loop.dataloader_iterator = None
    runner.train_dataloader._iterator = None
    return model.batches


def flat(batches: list[list[int]]) -> list[int]:
    return list(chain(*batches))


def iterations(number: int) -> dict:
    return dict(type='ResumableTrainLoop', max_iters=number)


def epochs(number: int) -> dict:
    return dict(type='ResumableEpochTrainLoop', max_epochs=number)


def of_rank(
    monkeypatch: pytest.MonkeyPatch, rank: int, world_size: int
) -> None:
    """Have samplers and loops take this for one of several processes."""
    monkeypatch.setattr(
        mmengine_sampler, 'get_dist_info', lambda: (rank, world_size)
    )
    monkeypatch.setattr(loops, 'get_world_size', lambda: world_size)


def options_of(workers: str, batches: str) -> dict[str, Any]:
    """Settings of a dataloader."""
    sampler, drop_last = BATCHES[batches]
    options = dict(WORKERS[workers], drop_last=drop_last)
    if sampler:
        options['batch_sampler'] = dict(type=sampler)
    return options


@pytest.mark.parametrize(('workers', 'batches', 'rank'), EVERY_WAY)
def test_iterations(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: str,
    batches: str,
    rank: int | None,
) -> None:
    """Resumed in the first pass through the data and in a later one."""
    if rank is not None:
        of_rank(monkeypatch, rank, 2)
    options = options_of(workers, batches)
    unbroken = train(tmp_path, iterations(14), **options)
    assert len(unbroken) == 14
    assert {len(batch) for batch in unbroken} == {3}
    for begin in (2, 9):
        resumed = train(
            tmp_path / 'resumed',
            iterations(14),
            resume_from=tmp_path / f'iter_{begin}.pth',
            **options,
        )
        assert resumed == unbroken[begin:]


@pytest.mark.parametrize(('workers', 'batches', 'rank'), EVERY_WAY)
def test_epochs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    workers: str,
    batches: str,
    rank: int | None,
) -> None:
    """Resumed within an epoch, at its last step and between two."""
    if rank is not None:
        of_rank(monkeypatch, rank, 2)
    options = options_of(workers, batches)
    unbroken = train(tmp_path, epochs(3), **options)
    length, rest = divmod(len(unbroken), 3)
    assert rest == 0
    if batches != 'drop_last':
        for epoch in range(3):
            seen = flat(unbroken[epoch * length : (epoch + 1) * length])
            assert len(seen) == (NUM_IMAGES if rank is None else 7)
    begins = {
        f'iter_{length + 1}': length + 1,
        f'iter_{length}': length,
        'epoch_1': length,
    }
    for name, begin in begins.items():
        resumed = train(
            tmp_path / 'resumed',
            epochs(3),
            resume_from=tmp_path / f'{name}.pth',
            **options,
        )
        assert resumed == unbroken[begin:], name
    # What was resumed is saved, and resumed again.
    again = train(
        tmp_path / 'again',
        epochs(3),
        resume_from=tmp_path / f'resumed/iter_{length + 2}.pth',
        **options,
    )
    assert again == unbroken[length + 2 :]


@pytest.mark.parametrize('make', [iterations, epochs])
def test_ranks_agree_on_the_order_with_seeds_of_their_own(
    tmp_path: Path, make: Any
) -> None:
    randomness = dict(seed=None, diff_rank_seed=True)
    options = dict(num_workers=0, randomness=randomness)
    unbroken = train(tmp_path, make(3), **options)
    resumed = train(
        tmp_path / 'resumed',
        make(3),
        resume_from=tmp_path / 'iter_2.pth',
        **options,
    )
    assert resumed == unbroken[2:]


class Counted(Images):
    """Counts the images that are loaded."""

    loaded: ClassVar[list[int]] = []

    def __getitem__(self, index: int) -> int:
        self.loaded.append(index)
        return index


def test_batches_that_were_trained_on_are_not_loaded(tmp_path: Path) -> None:
    for make, num_steps in ((iterations(4), 4), (epochs(1), 5)):
        folder = tmp_path / make['type']
        train(folder, make)
        Counted.loaded.clear()
        resumed = train(
            folder / 'resumed',
            make,
            resume_from=folder / 'iter_3.pth',
            dataset=Counted(),
        )
        assert len(resumed) == num_steps - 3
        assert flat(resumed) == Counted.loaded


def test_workers_start_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a first pass that a resumed training does not need."""
    train(tmp_path, iterations(3))
    started = []
    get_iterator = DataLoader._get_iterator  # which starts the workers

    def watched(loader: DataLoader) -> Any:
        started.append(loader)
        return get_iterator(loader)

    monkeypatch.setattr(DataLoader, '_get_iterator', watched)
    train(
        tmp_path / 'resumed',
        iterations(5),
        resume_from=tmp_path / 'iter_3.pth',
        num_workers=2,
    )
    assert len(started) == 1


@pytest.mark.parametrize('make', [iterations(8), epochs(2)])
def test_another_number_of_images_in_a_step(
    tmp_path: Path, make: dict
) -> None:
    """No image is trained on twice before all have been."""
    first = train(tmp_path, make, batch_size=4)
    resumed = train(
        tmp_path / 'resumed',
        make,
        resume_from=tmp_path / 'iter_2.pth',
        batch_size=2,
    )
    length = NUM_IMAGES - 8
    assert sorted(flat(first[:2]) + flat(resumed)[:length]) == list(
        range(NUM_IMAGES)
    )


def test_the_number_of_images_changes_twice(tmp_path: Path) -> None:
    """8 images with batches of 4, 4 with batches of 2, then one by one."""
    done = flat(train(tmp_path, iterations(2), batch_size=4))
    sizes = [(2, 2, 4), (4, 1, 5)]
    for number, (begin, size, end) in enumerate(sizes, 1):
        before, work_dir = work_dir_of(tmp_path, number)
        done += flat(
            train(
                work_dir,
                iterations(end),
                resume_from=before / f'iter_{begin}.pth',
                batch_size=size,
            )
        )
    assert sorted(done) == list(range(NUM_IMAGES))


def work_dir_of(root: Path, number: int) -> tuple[Path, Path]:
    """Where the last and this training of a chain write."""
    folders = [root, root / 'second', root / 'third']
    return folders[number - 1], folders[number]


@pytest.mark.parametrize('size', [1, 6])
def test_a_checkpoint_of_mmengines_loop_begins_its_next_epoch(
    tmp_path: Path, size: int
) -> None:
    """Whatever number of batches an epoch has had, or has."""
    cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
    train(tmp_path, cfg, batch_size=3)
    resumed = train(
        tmp_path / 'resumed',
        epochs(2),
        resume_from=tmp_path / 'epoch_1.pth',
        batch_size=size,
    )
    assert sorted(flat(resumed)) == list(range(NUM_IMAGES))


def test_a_checkpoint_of_mmengines_loop_resumes_within_its_epoch(
    tmp_path: Path,
) -> None:
    cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)
    unbroken = train(tmp_path, cfg)
    for begin in (5, 7):
        resumed = train(
            tmp_path / 'resumed',
            epochs(3),
            resume_from=tmp_path / f'iter_{begin}.pth',
        )
        assert resumed == unbroken[begin:]


def test_a_dataloader_that_is_no_config(tmp_path: Path) -> None:
    """Its batches cannot begin late; they are gone through."""

    def loader() -> DataLoader:
        images = Images()
        sampler = mmengine_sampler.DefaultSampler(images, seed=1)
        return DataLoader(
            images, 3, sampler=sampler, collate_fn=lambda images: images
        )

    unbroken = train(tmp_path, epochs(2), loader=loader())
    resumed = train(
        tmp_path / 'resumed',
        epochs(2),
        resume_from=tmp_path / 'iter_7.pth',
        loader=loader(),
    )
    assert resumed == unbroken[7:]


def test_iterating_changes_nothing() -> None:
    sampler = LateBatchSampler(range(10), 2, num_skipped=2)
    iter(sampler)
    assert list(sampler) == list(sampler) == [[4, 5], [6, 7], [8, 9]]
    assert len(sampler) == 5
