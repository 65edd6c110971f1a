"""What the published trainings set, where no weight would show it."""

import pytest
from mmengine.config import Config

from tests.helpers.configs import CONFIGS


@pytest.mark.parametrize(
    ('name', 'max_iters', 'milestone', 'drop_path'),
    [
        ('r50_8xb2-12e', 90000, 82500, None),
        ('r50_8xb2-36e', 270000, 225000, None),
        ('swin-t_8xb2-12e', 90000, 82500, 0.2),
        ('swin-t_8xb2-36e', 270000, 225000, 0.2),
        ('swin-l_8xb2-12e', 90000, 82500, 0.2),
        ('swin-l_8xb2-36e', 270000, 225000, 0.5),
    ],
)
def test_rank_detr(
    name: str, max_iters: int, milestone: int, drop_path: float | None
) -> None:
    config = Config.fromfile(CONFIGS / f'rank_detr/rank-detr_{name}_coco.py')
    model = config.model
    assert config.train_cfg.max_iters == max_iters
    assert config.train_cfg.val_interval == 5000
    assert config.default_hooks.checkpoint.interval == 5000
    (scheduler,) = config.param_scheduler
    assert scheduler.milestones == [milestone]
    assert (scheduler.gamma, scheduler.end) == (0.1, max_iters)
    assert config.optim_wrapper.optimizer == dict(
        type='AdamW', lr=2e-4, weight_decay=1e-4
    )
    assert config.optim_wrapper.clip_grad == dict(max_norm=0.1, norm_type=2)
    assert config.train_dataloader.dataset.filter_cfg == dict(
        filter_empty_gt=True, min_size=0
    )
    assert model.backbone.get('drop_path_rate') == drop_path
    is_swin = drop_path is not None
    assert model.backbone.get('with_cp', False) is False
    assert model.encoder.get('num_cp', 0) == (6 if is_swin else 0)
    assert model.decoder.get('num_cp', 0) == (6 if is_swin else 0)
    assert model.backbone.get('frozen_stages', 0) == 0
    assert model.inverse_sigmoid_eps == 1e-3
    assert model.test_cfg.max_per_img == 300
    assigner = model.train_cfg.assigner
    assert assigner.late_begin * max_iters == max_iters * 3 / 4
    assert assigner.late_match_costs == [
        dict(type='HighOrderIoUCost', alpha=4.0)
    ]
    for cost, kind, weight in zip(
        assigner.match_costs,
        ('FocalLossCost', 'BBoxL1Cost', 'NormalizedGIoUCost'),
        (2, 5, 2),
        strict=True,
    ):
        assert (cost.type, cost.weight) == (kind, weight)
