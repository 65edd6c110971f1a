"""The runner resolves, checks and works without a GPU."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import RUNNERS as MMDET_RUNNERS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import LOOPS, RUNNERS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import distributed as torch_dist

from project.engine import DETRRunner
from project.utils.errors import UserError
from tests.helpers.training import toy_config


@pytest.fixture
def make_runner(toy_data: Path, tmp_path: Path) -> Any:
    """Builds a runner of the toy config."""

    def make(data_root: Path = toy_data, **options: Any) -> DETRRunner:
        options.setdefault('overwrite', True)  # tests train more than once
        return RUNNERS.build(toy_config(data_root, tmp_path, **options))

    return make


@pytest.fixture(scope='module')
def checkpoint(
    toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What an epoch of training saves."""
    work_dir = tmp_path_factory.mktemp('trained')
    cfg = toy_config(toy_data, work_dir, train_cfg__max_epochs=1)
    RUNNERS.build(cfg).train()
    return work_dir / 'epoch_1.pth'


@pytest.mark.parametrize('registry', [RUNNERS, MMDET_RUNNERS])
def test_both_tools_of_mmdet_find_it(registry: Any) -> None:
    assert registry.get('DETRRunner') is DETRRunner


def test_the_config_in_work_dir_is_complete(
    make_runner: Any, tmp_path: Path, toy_data: Path
) -> None:
    runner = make_runner(classes=['ring', 'star'])
    dumped = Config.fromfile(tmp_path / 'toy_h-detr.py')
    assert dumped.runner_type == 'DETRRunner'
    assert dumped.train_dataloader.dataset.data_root == str(toy_data)
    assert dumped.test_evaluator.ann_file.startswith(str(toy_data))
    assert dumped.test_dataloader.dataset.metainfo.classes == ('ring', 'star')
    assert dumped.model.bbox_head.num_classes == 2
    assert runner.model.bbox_head.num_classes == 2


def test_a_config_is_formatted_once_in_a_training(
    make_runner: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    formatted = []
    # The forks' mmengine imports it anew each time.
    for place in ('mmengine.config.config', 'yapf.yapflib.yapf_api'):
        monkeypatch.setattr(
            f'{place}.FormatCode',
            lambda text, **_: (formatted.append(text), (text, True))[1],
        )
    runner = make_runner(train_cfg__max_epochs=1, my_number=1)
    runner.train()
    assert len(formatted) == 1
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert saved['meta']['cfg'] == formatted[0]
    assert Config.fromstring(formatted[0], '.py').my_number == 1

    runner.cfg.my_number = 2
    assert Config.fromstring(runner.cfg.pretty_text, '.py').my_number == 2
    assert Config(runner.cfg.to_dict()).pretty_text == runner.cfg.pretty_text


def test_contradictions_end_it_before_the_model_is_built(
    make_runner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DETRRunner, 'build_model', pytest.fail)
    with pytest.raises(UserError, match='max_per_img=71'):
        make_runner(model__test_cfg__max_per_img=71)


@pytest.mark.parametrize('task', ['train', 'val', 'test'])
def test_missing_data_ends_it_before_a_loop_is_built(
    make_runner: Any, tmp_path: Path, task: str
) -> None:
    runner = make_runner(data_root=tmp_path / 'no')
    with pytest.raises(UserError, match=f'of {task}_dataloader'):
        getattr(runner, task)()
    assert isinstance(getattr(runner, f'_{task}_loop'), dict)


def test_testing_needs_no_training_data(
    make_runner: Any, checkpoint: Path
) -> None:
    runner = make_runner(
        load_from=str(checkpoint), train_dataloader__dataset__ann_file='no'
    )
    assert 'coco/bbox_mAP' in runner.test()


def test_mixed_precision_in_training_does_not_keep_from_testing(
    make_runner: Any, checkpoint: Path
) -> None:
    runner = make_runner(
        load_from=str(checkpoint), optim_wrapper__type='AmpOptimWrapper'
    )
    assert 'coco/bbox_mAP' in runner.test()


@pytest.mark.parametrize('task', ['train', 'test'])
def test_checkpoint_with_other_classes(
    make_runner: Any, checkpoint: Path, task: str
) -> None:
    runner = make_runner(load_from=str(checkpoint), classes=['ring', 'star'])
    with pytest.raises(UserError, match='for 7 classes and the model has 2'):
        getattr(runner, task)()


def test_a_part_of_a_checkpoint_is_loaded_when_asked_for(
    make_runner: Any, checkpoint: Path
) -> None:
    options = dict(
        load_from=str(checkpoint),
        model__num_queries=12,
        optim_wrapper__optimizer__lr=0.0,
        train_cfg__max_epochs=1,
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    with pytest.raises(UserError, match='load_partially=True'):
        make_runner(**options).train()
    model = make_runner(**options, load_partially=True).train()
    saved = torch.load(checkpoint)['state_dict']
    assert model.query_embedding.weight.shape[0] == 22
    assert saved['query_embedding.weight'].shape[0] == 20
    torch.testing.assert_close(model.level_embed.data, saved['level_embed'])


def test_checkpoint_is_checked_behind_test_time_augmentation(
    make_runner: Any, checkpoint: Path
) -> None:
    runner = make_runner(load_from=str(checkpoint))
    cfg = runner.cfg
    cfg.model = dict(type='DetTTAModel', module=cfg.model, tta_cfg=dict())
    cfg.load_from = str(checkpoint.with_name('no.pth'))
    wrapped = RUNNERS.build(cfg)
    with pytest.raises(UserError, match=r'no\.pth does not exist'):
        wrapped.test()


def test_weights_alone_cannot_be_resumed_from(
    make_runner: Any, checkpoint: Path, tmp_path: Path
) -> None:
    weights = tmp_path / 'weights.pth'
    torch.save(torch.load(checkpoint)['state_dict'], weights)
    runner = make_runner(load_from=str(weights), resume=True)
    with pytest.raises(UserError, match='load_from instead'):
        runner.train()


def test_resuming_nothing_says_so_and_starts_anew(
    make_runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(resume=True, train_cfg__max_epochs=1)
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        runner.train()
    assert 'Nothing to resume' in caplog.text
    assert runner.epoch == 1


def test_resuming_what_is_over_says_so(
    make_runner: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for epochs, is_over in ((1, False), (2, False), (2, True)):
        caplog.clear()
        runner = make_runner(resume=True, train_cfg__max_epochs=epochs)
        runner.logger.addHandler(caplog.handler)
        with caplog.at_level(logging.INFO):
            runner.train()
        assert runner.epoch == epochs
        told = f'epoch {epochs}; nothing is left to train' in caplog.text
        assert told == is_over


def test_resuming_nothing_starts_from_what_the_config_loads(
    make_runner: Any, checkpoint: Path, tmp_path: Path
) -> None:
    """As a command that is repeated until it is through does at first."""
    optimizer = dict(lr=0.0, weight_decay=0.0)
    options = dict(
        resume=True,
        start_from=str(checkpoint),
        optim_wrapper__optimizer=dict(type='AdamW', **optimizer),
    )
    runner = make_runner(**options, train_cfg__max_epochs=1)
    runner.train()
    assert runner.epoch == 1
    expected = torch.load(checkpoint)['state_dict']['level_embed']
    assert torch.equal(runner.model.level_embed.cpu(), expected)
    # There is a training now, which goes on.
    again = make_runner(
        **options | dict(start_from='gone.pth'),
        overwrite=False,
        train_cfg__max_epochs=2,
    )
    again.train()
    assert again.epoch == 2


def test_one_process_of_a_launcher_without_gpu(
    make_runner: Any, one_rank: None
) -> None:
    runner = make_runner(
        launcher='pytorch',
        train_cfg__max_epochs=1,
        env_cfg__dist_cfg__timeout=60,
    )
    assert torch_dist.get_backend() == 'gloo'
    assert isinstance(runner.model, MMDistributedDataParallel)
    assert runner.model.device_ids is None
    assert not runner.model.find_unused_parameters
    runner.train()
    assert runner.iter == 2


def test_synchronised_norms_on_a_cpu(make_runner: Any, one_rank: None) -> None:
    """Those of HPR's configs, which DDP takes on GPUs only."""
    norm = dict(type='SyncBN', requires_grad=False)
    runner = make_runner(launcher='pytorch', model__backbone__norm_cfg=norm)
    layers = [
        layer
        for layer in runner.model.modules()
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
    ]
    assert layers
    assert not any(isinstance(x, torch.nn.SyncBatchNorm) for x in layers)
    assert not any(x.weight.requires_grad for x in layers)


@pytest.mark.parametrize(
    ('kind', 'expected'),
    [
        (dict(by_epoch=True), 'ResumableEpochTrainLoop'),
        (dict(type='EpochBasedTrainLoop'), 'ResumableEpochTrainLoop'),
        (dict(type=EpochBasedTrainLoop), 'ResumableEpochTrainLoop'),
        (dict(type='OwnLoop'), 'OwnLoop'),
    ],
)
def test_loops_of_mmengine_resume_exactly(
    make_runner: Any, kind: dict, expected: str
) -> None:
    @LOOPS.register_module(force=True)
    class OwnLoop(EpochBasedTrainLoop):
        pass

    runner = make_runner(train_cfg=dict(_delete_=True, max_epochs=1, **kind))
    loop = runner.train_loop
    assert type(loop).__name__ == expected
    assert loop.max_epochs == 1


def test_settings_of_the_wrapper_are_kept(
    make_runner: Any, one_rank: None
) -> None:
    runner = make_runner(
        launcher='pytorch',
        model_wrapper_cfg=dict(find_unused_parameters=True),
    )
    assert runner.model.device_ids is None
    assert runner.model.find_unused_parameters


@pytest.mark.parametrize(
    ('launcher', 'names'),
    [
        ('pytorch', 'RANK, WORLD_SIZE, LOCAL_RANK; start the job with '),
        ('slurm', 'SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID; '),
        ('mpi', 'OMPI_COMM_WORLD_RANK'),
    ],
)
def test_launcher_that_did_not_launch(
    make_runner: Any,
    no_ranks: pytest.MonkeyPatch,
    launcher: str,
    names: str,
) -> None:
    with pytest.raises(UserError, match=names):
        make_runner(launcher=launcher)


def iterations(number: int, **options: Any) -> dict[str, Any]:
    """Options of a training that is counted in iterations."""
    return dict(
        train_cfg=dict(
            _delete_=True,
            type='ResumableTrainLoop',
            max_iters=number,
            val_interval=number + 1,
        ),
        param_scheduler=[],
        train_dataloader__sampler=dict(_delete_=True, type='InfiniteSampler'),
        default_hooks__checkpoint__by_epoch=False,
        log_processor__by_epoch=False,
        **options,
    )


class WatchCosts(Hook):
    """Notes at which iterations the late matching cost is in force."""

    def __init__(self) -> None:
        self.late: dict[int, bool] = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        assigner = runner.model.bbox_head.assigner
        costs = assigner.current_costs()
        self.late[runner.iter] = costs is assigner.late_match_costs


@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
def test_the_matching_cost_changes_late_also_after_resuming(
    make_runner: Any, tmp_path: Path, loop: str
) -> None:
    """Of 6 iterations it is the last 3, two of which are resumed."""
    options: dict[str, Any] = dict(
        model__train_cfg__assigner__late_match_costs=[
            dict(type='HighOrderIoUCost')
        ],
        model__train_cfg__assigner__late_begin=0.5,
        default_hooks__checkpoint__interval=2,
    )
    if loop == 'epochs':
        options.update(train_cfg__max_epochs=3, train_cfg__val_interval=9)
    else:
        options.update(iterations(6))
    unbroken = WatchCosts()
    runner = make_runner(**copy.deepcopy(options))
    runner.register_hook(unbroken)
    runner.train()
    expected = {i: i >= 3 for i in range(6)}
    assert unbroken.late == expected

    kept = 'epoch_2.pth' if loop == 'epochs' else 'iter_4.pth'
    resumed = WatchCosts()
    runner = make_runner(
        **options, resume=True, load_from=str(tmp_path / kept)
    )
    runner.register_hook(resumed)
    runner.train()
    assert resumed.late == {4: True, 5: True}


class WatchImages(Hook):
    """Notes the images of each iteration."""

    def __init__(self) -> None:
        self.images: dict[int, list[int]] = {}

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        samples = data_batch['data_samples']
        self.images[runner.iter] = [sample.img_id for sample in samples]


@pytest.mark.parametrize('sorts_by_shape', [False, True])
def test_iterations_resume_with_the_next_images_and_load_no_others(
    make_runner: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sorts_by_shape: bool,
) -> None:
    """Though each run would draw another seed for its sampler."""
    options = iterations(
        7,
        default_hooks__checkpoint__interval=5,
        train_dataloader__batch_size=3,
        randomness=dict(_delete_=True, seed=None),
    )
    if sorts_by_shape:
        sampler = dict(_delete_=True, type='AspectRatioBatchSampler')
        options['train_dataloader__batch_sampler'] = sampler
    unbroken, resumed = WatchImages(), WatchImages()
    runner = make_runner(**copy.deepcopy(options))
    runner.register_hook(unbroken)
    runner.train()
    trained = runner.model.state_dict()

    runner = make_runner(
        **options, resume=True, load_from=str(tmp_path / 'iter_5.pth')
    )
    runner.register_hook(resumed)
    loaded = []
    load = CocoDataset.__getitem__

    def watched_load(dataset: CocoDataset, index: int) -> dict:
        if not dataset.test_mode:
            loaded.append(index)
        return load(dataset, index)

    monkeypatch.setattr(CocoDataset, '__getitem__', watched_load)
    runner.train()
    assert resumed.images == {i: unbroken.images[i] for i in (5, 6)}
    assert len(loaded) == 2 * 3
    for name, value in runner.model.state_dict().items():
        torch.testing.assert_close(value, trained[name], rtol=0, atol=0)


@pytest.mark.parametrize(('base_batch', 'is_told'), [(4, False), (16, True)])
def test_iterations_for_another_batch_are_told(
    make_runner: Any,
    monkeypatch: pytest.MonkeyPatch,
    base_batch: int,
    is_told: bool,
) -> None:
    runner = make_runner(
        **iterations(1, auto_scale_lr__base_batch_size=base_batch)
    )
    warnings = []
    monkeypatch.setattr(runner.logger, 'warning', warnings.append)
    runner.train()
    told = [message for message in warnings if 'meant for' in message]
    assert bool(told) == is_told
    if is_told:
        assert 'batches of 16 images, and these have 4' in told[0]
        assert 'to 4 times theirs' in told[0]


def test_fewer_images_than_a_batch(make_runner: Any) -> None:
    """Epochs without a batch would end well, and nothing be trained."""
    runner = make_runner(
        train_dataloader__batch_size=50, train_dataloader__drop_last=True
    )
    with pytest.raises(UserError, match='less than a batch of batch_size=50'):
        runner.train()
    make_runner(
        train_dataloader__batch_size=50,
        train_dataloader__drop_last=False,
        train_cfg__max_epochs=1,
    ).build_train_loop(dict(type='EpochBasedTrainLoop', max_epochs=1))


def test_a_config_from_text_without_a_schedule(
    toy_data: Path, tmp_path: Path
) -> None:
    """A config from text, without a schedule, its rate scaled."""
    cfg = toy_config(
        toy_data,
        tmp_path,
        auto_scale_lr=dict(base_batch_size=8, enable=True),
        train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1),
    )
    for name in ('val_cfg', 'val_dataloader', 'val_evaluator'):
        cfg[name] = None
    cfg.pop('param_scheduler')
    cfg = Config.fromstring(cfg.pretty_text, '.py')
    assert not Path(cfg.filename).exists()
    runner = RUNNERS.build(cfg)
    told = []
    runner.logger.info = lambda text, **_: told.append(text)
    runner.train()
    (plan,) = [line for line in told if line.startswith('Training  ')]
    assert '1 iteration of 4 images, AdamW, lr 0.0001' in plan
    assert runner.iter == 1


def test_what_cannot_be_described_is_trained_all_the_same(
    make_runner: Any,
) -> None:
    """A batch sampler of a user's need not tell how large batches are."""
    runner = make_runner(
        train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1),
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
    )
    runner.train_loop.dataloader.batch_sampler.batch_size = [2, 2]
    told = []
    runner.logger.info = lambda text, **_: told.append(text)
    runner.train()
    assert runner.iter == 1
    assert any(line.startswith('Plan: TypeError') for line in told)
