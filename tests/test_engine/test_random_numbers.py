"""Random numbers of a training: per process, and after resuming."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import project  # noqa: F401  registers the runner
from tests.helpers.configs import CONFIGS
from tests.helpers.training import run_tool, toy_config

DN_CONFIG = CONFIGS.parent / 'tests/data/configs/toy_dn.py'


@pytest.mark.parametrize(
    ('name', 'differ'),
    [
        ('h_detr/h-detr_r50_8xb2-12e_coco', True),
        ('deta/deta_r50_5scale_8xb2-12e_coco-detrex', True),
        ('dn_detr/dn-detr_r50_8xb2-50e_coco', True),
        ('rank_detr/rank-detr_r50_8xb2-12e_coco', True),
        ('hpr/hpr-dino_r50_8xb2-12e_coco', False),
        ('hpr/hpr-ddq_r50_8xb2-88k_coco', False),
    ],
)
def test_processes_have_streams_of_their_own_but_hprs(
    name: str, differ: bool
) -> None:
    """Each as its authors have it."""
    randomness = Config.fromfile(CONFIGS / f'{name}.py').randomness
    assert randomness.diff_rank_seed == differ


def train(cfg: Config) -> Runner:
    runner = RUNNERS.build(cfg)
    runner.train()
    return runner


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


@pytest.mark.parametrize(
    ('loop', 'dn_seed', 'num_workers'),
    [('epochs', None, 0), ('iterations', 3, 0), ('iterations', None, 2)],
)
def test_a_resumed_training_draws_the_same_noise(
    toy_data: Path,
    tmp_path: Path,
    loop: str,
    dn_seed: int | None,
    num_workers: int,
) -> None:
    """And dropout and flips, though a validation came in between.

    Workers, which flip images, begin anew.
    """
    options: dict[str, Any] = dict(
        randomness__seed=None, model__dn_cfg__seed=dn_seed
    )
    if num_workers:
        options.update(
            train_dataloader__num_workers=num_workers,
            train_dataloader__dataset__pipeline__3__prob=0.0,
        )
    if loop == 'iterations':
        options.update(
            train_cfg=dict(
                _delete_=True,
                type='ResumableTrainLoop',
                max_iters=6,
                val_interval=2,
            ),
            train_dataloader__sampler=dict(
                _delete_=True, type='InfiniteSampler'
            ),
            default_hooks__checkpoint__by_epoch=False,
            default_hooks__checkpoint__interval=1,
            log_processor__by_epoch=False,
        )
        middle, last = 'iter_2.pth', 'iter_6.pth'
    else:
        middle, last = 'epoch_1.pth', 'epoch_3.pth'
    unbroken, broken = tmp_path / 'unbroken', tmp_path / 'broken'
    first = train(
        toy_config(toy_data, unbroken, DN_CONFIG, **copy.deepcopy(options))
    )
    second = train(
        toy_config(
            toy_data,
            broken,
            DN_CONFIG,
            **options,
            resume=True,
            load_from=str(unbroken / middle),
        )
    )
    assert first.iter == second.iter == 6
    torch.testing.assert_close(
        weights_of(broken / last),
        weights_of(unbroken / last),
        rtol=0,
        atol=0,
    )


def test_steps_draw_different_numbers(toy_data: Path, tmp_path: Path) -> None:
    """Of one seed each, at every step others."""
    cfg = toy_config(toy_data, tmp_path, DN_CONFIG, train_cfg__max_epochs=2)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    runner = RUNNERS.build(cfg)
    generator = runner.model.dn_query_generator
    draw, drawn = generator.draw_noise, []

    def watched(num: int, device: torch.device) -> Any:
        noise = draw(num, device)
        drawn.append(noise.label_rand[:4].tolist())
        return noise

    generator.draw_noise = watched
    runner.train()
    assert len(drawn) == 4
    assert len({tuple(numbers) for numbers in drawn}) == 4


@pytest.mark.slow
def test_two_processes(toy_data: Path, tmp_path: Path) -> None:
    """They start alike and draw different noise, also when resumed."""
    options = ('--cfg-options', f'data_root={toy_data}')
    result = run_tool('dist_train.sh', DN_CONFIG, '2', tmp_path, *options)
    assert result.returncode == 0, result.stderr
    ranks = [
        torch.load(tmp_path / f'noise_{rank}.pth', weights_only=True)
        for rank in (0, 1)
    ]
    for name, weight in ranks[0]['start'].items():
        assert weight.equal(ranks[1]['start'][name]), name
    for one, two in zip(ranks[0]['noise'], ranks[1]['noise'], strict=True):
        assert one[:4].tolist() != two[:4].tolist()
    expected = weights_of(tmp_path / 'epoch_3.pth')
    resumed = tmp_path / 'resumed'
    result = run_tool(
        'dist_train.sh',
        DN_CONFIG,
        '2',
        resumed,
        '--resume',
        tmp_path / 'epoch_1.pth',
        *options,
    )
    assert result.returncode == 0, result.stderr
    torch.testing.assert_close(
        weights_of(resumed / 'epoch_3.pth'), expected, rtol=0, atol=0
    )
    for rank in (0, 1):
        noise = torch.load(resumed / f'noise_{rank}.pth', weights_only=True)
        assert len(noise['noise']) == 2
        for one, two in zip(
            noise['noise'], ranks[rank]['noise'][1:], strict=True
        ):
            assert one.equal(two)
