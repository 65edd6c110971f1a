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
    filter_cfg = config.train_dataloader.dataset.filter_cfg
    assert (filter_cfg.filter_empty_gt, filter_cfg.min_size) == (True, 0)
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


@pytest.mark.parametrize(
    (
        'name',
        'by_epoch',
        'milestone',
        'total',
        'rate',
        'batch_size',
        'frozen_stages',
        'max_per_img',
    ),
    [
        # The authors' of DETA: lr 2e-4, StepLR.
        ('deta/deta_r50_5scale_8xb2-12e', True, 10, 12, 2e-4, 2, 1, 100),
        ('deta/deta_r50_5scale_8xb2-24e', True, 20, 24, 2e-4, 2, 1, 100),
        (
            'deta/deta_r50_improved-baseline_8xb2-50e',
            *(True, 40, 50, 2e-4, 2, 1, 100),
        ),
        (
            'deta/deta_swin-l_5scale_16xb1-24e',
            *(True, 20, 24, 5e-5, 1, None, 100),
        ),
        (
            'deta/deta_r50_5scale_8xb1-12e',
            *(False, 150000, 180000, 1e-4, 1, 0, 100),
        ),
        (
            'deta/deta_r50_5scale_no-frozen-backbone_8xb2-12e',
            *(False, 75000, 90000, 2e-4, 2, 0, 100),
        ),
        *(
            (f'anchor_detr/anchor-detr_{name}_{batch}-50e', *settings)
            for name in ('r50', 'r50-dc5', 'r101', 'r101-dc5')
            for batch, settings in (
                ('8xb2', (False, 300000, 375000, 1e-4, 2, 1, 100)),  # detrex's
                ('8xb1', (True, 40, 50, 1e-4, 1, 1, 100)),  # the authors'
            )
        ),
        ('dn_detr/dn-detr_r50_8xb2-50e', True, 40, 50, 1e-4, 2, 1, 300),
        ('dn_detr/dn-detr_r101_8xb2-50e', True, 40, 50, 1e-4, 2, 1, 300),
        ('dn_detr/dn-detr_r50-dc5_16xb1-50e', True, 40, 50, 1e-4, 1, 1, 300),
        (
            'dn_detr/dn-detr_r50-dc5_3pat_16xb1-12e',
            *(True, 11, 12, 1e-4, 1, 1, 300),
        ),
        (
            'dn_detr/dn-deformable-detr_r50_8xb2-50e',
            *(True, 40, 50, 1e-4, 2, 1, 100),
        ),
        (
            'dn_detr/dn-deformable-encoder-detr_r50_3pat_16xb1-50e',
            *(True, 40, 50, 1e-4, 1, 1, 300),
        ),
        (
            'dn_detr/dn-detr_r50_8xb2-50e_coco-detrex',
            *(False, 300000, 375000, 1e-4, 2, 0, 300),
        ),
        (
            'dn_detr/dn-detr_r50-dc5_16xb1-50e_coco-detrex',
            *(False, 300000, 375000, 1e-4, 1, 1, 300),
        ),
        (
            'dn_detr/dn-deformable-detr_r50_8xb2-12e_coco-detrex',
            *(False, 82500, 90000, 1e-4, 2, 0, 300),
        ),
        (
            'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco-detrex',
            *(False, 300000, 375000, 1e-4, 2, 0, 300),
        ),
    ],
)
def test_schedule(
    name: str,
    by_epoch: bool,
    milestone: int,
    total: int,
    rate: float,
    batch_size: int,
    frozen_stages: int | None,
    max_per_img: int,
) -> None:
    file = name if '_coco' in name else f'{name}_coco'
    config = Config.fromfile(CONFIGS / f'{file}.py')
    loop = config.train_cfg
    assert loop.get('max_epochs' if by_epoch else 'max_iters') == total
    (scheduler,) = config.param_scheduler
    assert scheduler.by_epoch == by_epoch
    assert (scheduler.milestones, scheduler.end) == ([milestone], total)
    assert config.optim_wrapper.optimizer == dict(
        type='AdamW', lr=rate, weight_decay=1e-4
    )
    if 'deta' in name and not by_epoch:  # detrex does not clip DETA
        assert config.optim_wrapper.clip_grad is None
    else:
        assert config.optim_wrapper.clip_grad.max_norm == 0.1
    assert config.train_dataloader.batch_size == batch_size
    assert config.model.backbone.get('frozen_stages') == frozen_stages
    assert config.model.test_cfg.max_per_img == max_per_img
