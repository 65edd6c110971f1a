"""Trainings that are split among two processes."""

import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import RUNNERS
from torch import nn
from torch.distributed.fsdp import FSDPModule

import project  # noqa: F401
from project.engine.hooks.sharding import blocks, shard_training, whole
from project.engine.optim_wrappers import DETROptimWrapper
from project.preflight.fast_runtime import apply_checkpointing, check_sharding
from project.utils.errors import UserError
from project.utils.finite import not_finite
from tests.helpers.configs import CONFIGS, read_config
from tests.helpers.toy import build_model, toy_batch, toy_model_config
from tests.helpers.training import (
    TOY_CONFIG,
    WATCHED_CONFIG,
    load_tool,
    run_tool,
    toy_config,
)

SWIN = 'h_detr/h-detr_swin-l_8xb2-12e_coco'
TRAINED = [
    SWIN,
    'align_detr/align-detr_r50_8xb2-12e_coco',
    'anchor_detr/anchor-detr_r50_8xb2-50e_coco',
    'deta/deta_swin-l_5scale_16xb1-24e_coco',
    'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco',
    'dn_detr/dn-detr_r50_8xb2-50e_coco',
    'hpr/hpr-ddq_r50_8xb2-88k_coco',
    'hpr/hpr-dino_r50_8xb2-12e_coco',
    'rank_detr/rank-detr_swin-l_8xb2-12e_coco',
]
OBJECTS = (((3, 2), (0, 0)), ((0, 0), (4, 1)), ((0, 0), (0, 0)))
"""In each step, on each rank, in each image."""
STATIC = dict(static_graph=True, gradient_as_bucket_view=True)


def small_detector(config: str, recomputes: bool) -> nn.Module:
    cfg = read_config(str(CONFIGS / f'{config}.py'))
    cfg.model = toy_model_config(CONFIGS / f'{config}.py')
    cfg.activation_checkpointing = recomputes or None
    apply_checkpointing(cfg)
    # DDP refuses SyncBN on the CPU.
    return revert_sync_batchnorm(build_model(cfg.model)).double().train()


def run_rank(rank: int, folder: str, configs: list[str]) -> None:
    """One process: train each config in each way."""
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/store',
        world_size=2,
        rank=rank,
        timeout=timedelta(seconds=300),
    )
    for config in configs:
        found = {
            'ddp': train(rank, config, 'ddp'),
            'static': train(rank, config, 'ddp', **STATIC),
            'sharded': train(rank, config, 'sharded'),
            'recomputed': train(rank, config, 'sharded', recomputes=True),
        }
        if rank == 0:
            torch.save(found, f'{folder}/{config.replace("/", "_")}.pth')
    dist.destroy_process_group()


def train(
    rank: int, config: str, way: str, recomputes: bool = False, **options: Any
) -> dict:
    """Train a few steps.

    Returns:
        The weights, the state of the optimizer, and this rank's parts of both.
    """
    model = detector = small_detector(config, recomputes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-4)
    wrapper = DETROptimWrapper(optimizer, clip_grad=dict(max_norm=0.1))
    if way == 'sharded':
        # The state of a resumed optimizer is split as well.
        step(model, wrapper, toy_batch(seed=9))
        shard_training(model, optimizer)
        assert isinstance(model.decoder.layers[0], FSDPModule)
    else:
        step(model, wrapper, toy_batch(seed=9))
        model = MMDistributedDataParallel(model, **options)
    for index, num_gts in enumerate(OBJECTS):
        batch = toy_batch(num_gts=num_gts[rank], seed=10 * index + rank)
        step(model, wrapper, batch)
    held = sum(_held(value) for value in model.parameters())
    for state in optimizer.state.values():
        held += sum(map(_held, state.values()))
    assert not not_finite(detector.state_dict())
    results = dict(
        weights=whole(detector.state_dict()),
        optimizer=whole(optimizer.state_dict())['state'],
        held=held,
    )
    if way == 'sharded':
        check_nan_is_told_to_all(detector, rank)
    return results


def step(model: nn.Module, wrapper: DETROptimWrapper, batch: tuple) -> None:
    torch.manual_seed(0)  # of dropout and noise
    inputs, samples = batch
    losses = model(inputs.double(), samples, mode='loss')
    terms = [
        term
        for value in losses.values()
        for term in (value if isinstance(value, list) else [value])
    ]
    wrapper.update_params(torch.stack([term.sum() for term in terms]).sum())


def _held(tensor: torch.Tensor) -> int:
    local = tensor.to_local() if hasattr(tensor, 'to_local') else tensor
    return local.numel()


@pytest.mark.slow
def test_weights_are_those_of_ddp(tmp_path: Path) -> None:
    mp.spawn(run_rank, (str(tmp_path), TRAINED), nprocs=2)
    for config in TRAINED:
        found = torch.load(tmp_path / f'{config.replace("/", "_")}.pth')
        expected = found.pop('ddp')
        for way, results in found.items():
            for part in ('weights', 'optimizer'):
                torch.testing.assert_close(
                    results[part],
                    expected[part],
                    rtol=1e-9,
                    atol=1e-11,
                    msg=lambda text, at=(config, way, part): f'{at}: {text}',
                )
        share = found['sharded']['held'] / expected['held']
        assert 0.5 <= share < 0.52


def check_nan_is_told_to_all(detector: nn.Module, rank: int) -> None:
    name = 'decoder.layers.0.norms.0.weight'
    part = detector.get_parameter(name).detach().to_local()
    part.fill_(torch.nan if rank == 1 else 1.0)
    assert not_finite(detector.state_dict()) == [name]


def check_alike(found: dict, expected: dict) -> None:
    """The weights of two checkpoints, and the moments of their optimizers."""
    for part in (
        lambda checkpoint: checkpoint['state_dict'],
        lambda checkpoint: checkpoint['optimizer']['state'],
    ):
        torch.testing.assert_close(
            part(found), part(expected), rtol=0, atol=1e-6
        )


def test_blocks() -> None:
    """Those of the backbone, and the layers of encoder and decoder."""
    config = toy_model_config(CONFIGS / f'{SWIN}.py')
    names = [type(block).__name__ for block in blocks(build_model(config))]
    assert names.count('SwinBlock') == 6  # of 8; the first two are small
    assert sum('EncoderLayer' in name for name in names) == 2
    assert sum('DecoderLayer' in name for name in names) == 2
    assert not any('Linear' in name for name in names)


def test_one_process(toy_data: Path, tmp_path: Path, one_rank: None) -> None:
    """A split training saves and resumes what others do."""

    def train_toy(name: str, **options: Any) -> dict:
        cfg = toy_config(
            toy_data,
            tmp_path / name,
            launcher='pytorch',
            overwrite=True,
            val_cfg=None,
            val_dataloader=None,
            val_evaluator=None,
            **options,
        )
        runner = RUNNERS.build(cfg)
        runner.train()
        is_split = isinstance(runner.model, FSDPModule)
        assert is_split == ('fully_shard' in options)
        return torch.load(tmp_path / name / 'epoch_2.pth')

    expected = train_toy('ddp')
    whole_run = train_toy('split', fully_shard=True)
    first = str(tmp_path / 'ddp' / 'epoch_1.pth')
    resumed = train_toy(
        'split', fully_shard=True, resume=True, load_from=first
    )
    for found in (whole_run, resumed):
        check_alike(found, expected)


def test_gradients_in_bf16(one_rank: None) -> None:
    """Those of a step without splitting, and the same loss."""
    dist.init_process_group('gloo')
    plain = small_detector(TRAINED[1], recomputes=False).float()
    split = copy.deepcopy(plain)
    shard_training(split, torch.optim.SGD(split.parameters(), lr=1.0))
    losses = []
    for model in (plain, split):
        torch.manual_seed(0)  # of the noise
        with torch.autocast('cpu', torch.bfloat16):
            loss, _ = model.parse_losses(model(*toy_batch(), mode='loss'))
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == losses[1]
    gradients = {name: p.grad for name, p in plain.named_parameters()}
    for name, parameter in split.named_parameters():
        found, expected = parameter.grad, gradients[name]
        assert (found is None) == (expected is None)
        if expected is not None:
            # What another order of a sum rounds, autocast rounds to bf16.
            error = (found.full_tensor() - expected).norm()
            rounding = torch.finfo(torch.bfloat16).eps
            assert error <= rounding * expected.norm(), name


def test_without_a_launcher_it_says_so(toy_data: Path, tmp_path: Path) -> None:
    cfg = toy_config(toy_data, tmp_path, fully_shard=True, max_epochs=1)
    RUNNERS.build(cfg).train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'fully_shard=True has no effect: this training has one' in log


def test_benchmark(
    one_rank: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    tool = load_tool('analysis_tools/benchmark_sharding')
    options = '--shape 64 64 --repeats 1 --ways alone fully_shard'
    words = ['benchmark', str(TOY_CONFIG), *options.split()]
    monkeypatch.setattr('sys.argv', words)
    tool.main()
    rows = capsys.readouterr().out.splitlines()
    alone, split = (row.split('|') for row in rows if 'toy' in row)
    assert float(alone[1]) == 1
    assert float(alone[2]) == float(split[2]) > 2  # one process holds all

    monkeypatch.delenv('LOCAL_RANK')
    with pytest.raises(SystemExit, match='has to be started with torchrun'):
        tool.main()


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(custom_hooks=[dict(type='EMAHook')]), 'EMAHook'),
        (dict(model_wrapper_cfg=STATIC), 'model_wrapper_cfg'),
        (dict(optim_wrapper__type='AmpOptimWrapper'), 'fp16'),
    ],
)
def test_what_does_not_go_together(
    tmp_path: Path, options: dict, words: str
) -> None:
    cfg = toy_config(tmp_path, tmp_path, fully_shard=True, **options)
    with pytest.raises(UserError, match=rf'fully_shard=True .*{words}'):
        check_sharding(cfg)
    cfg.fully_shard = False
    check_sharding(cfg)


@pytest.mark.slow
def test_launcher(toy_data: Path, tmp_path: Path) -> None:
    """Killed and resumed, split or not, it ends with the weights of DDP."""

    def train_toy(name: str, *options: str, ends: int = 0, **env: str) -> dict:
        result = run_tool(
            'dist_train.sh',
            WATCHED_CONFIG,
            '2',
            tmp_path / name,
            '--resume',
            '--cfg-options',
            f'data_root={toy_data}',
            'train_dataloader.batch_size=2',
            'optim_wrapper.optimizer.eps=1e-4',
            *options,
            env=env,
        )
        assert (result.returncode == 0) == (ends == 0), result.stderr
        files = tmp_path / name
        return torch.load(files / f'epoch_{ends or 3}.pth')

    expected = train_toy('ddp')
    sharded = 'fully_shard=True'
    train_toy('sharded', sharded, ends=2, KILL_AT='4')
    (tmp_path / 'onward').mkdir()
    half = tmp_path / 'sharded' / 'epoch_2.pth'
    (tmp_path / 'onward' / 'epoch_2.pth').write_bytes(half.read_bytes())
    for found in (train_toy('sharded', sharded), train_toy('onward')):
        check_alike(found, expected)
