"""What configs of HPR may leave out, as its authors' do, and may not set."""

import re
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import nn

import project  # noqa: F401  registers the models
from project.models.layers.transformer.proposal_refiner import (
    ROI_EXTRACTOR,
    ProposalRefinerLayer,
)
from project.models.layers.transformer.regional_layers import (
    RegionalCrossAttention,
    RegionalDynamicConv,
)
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS
from tests.helpers.toy import build_model, toy_batch, toy_model_config


def config(base: str, **changes: Any) -> ConfigDict:
    """A shipped model with few layers and with some settings changed.

    Args:
        base: ``dino``, ``align-detr`` or ``ddq``.
        **changes: With ``__`` for the dots of their keys.
    """
    model = toy_model_config(f'_base_/models/hpr_{base}_r50.py')
    model.decoder.layer_cfg.dy_conv_cfg.feat_channels = 4
    whole = Config(dict(model=model))
    whole.merge_from_dict(
        {f'model.{k.replace("__", ".")}': v for k, v in changes.items()}
    )
    return whole.model


def build(model: ConfigDict) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(model)


def is_recomputed(module: nn.Module) -> bool:
    return 'forward' in vars(module)


@pytest.mark.parametrize('base', ['dino', 'align-detr'])
def test_denoising_is_asked_for(base: str) -> None:
    """Left out, the authors' ``use_dn`` is False."""
    model = config(base)
    assert hasattr(build(model), 'dn_query_generator')
    del model['use_dn']
    detector = build_model(model)
    assert not hasattr(detector, 'dn_query_generator')
    assert not any('dn_' in name for name in detector.loss(*toy_batch()))


def test_align_detr_and_ddq_denoise_by_default() -> None:
    align = toy_model_config('align_detr/align-detr_r50_8xb2-12e_coco.py')
    for model in (align, config('ddq')):
        assert hasattr(build(model), 'dn_query_generator')


def test_weights_of_the_auxiliary_losses() -> None:
    """The authors have a default for DDQ alone."""
    ddq, dino = config('ddq'), config('dino')
    del ddq['aux_weights'], dino['aux_weights']
    assert build(ddq).aux_weights == [0.5, 0.5]
    with pytest.raises(UserError, match=r'aux_weights=\[\] should have'):
        build(dino)


def test_the_default_of_the_regions_is_the_published_one() -> None:
    shipped = Config.fromfile(CONFIGS / '_base_/models/proposal_refiner.py')
    assert shipped.bbox_roi_extractor == ROI_EXTRACTOR


@pytest.mark.parametrize('base', ['dino', 'align-detr', 'ddq'])
def test_regions_by_default(base: str) -> None:
    model = config(base)
    expected = build_model(model)
    del model.decoder['bbox_roi_extractor']
    found = build_model(model)
    for layer in found.decoder.layers:
        assert isinstance(layer, ProposalRefinerLayer)
        assert layer.roi_align.extractor.finest_scale == 56
    batch, samples = toy_batch()
    with torch.no_grad():
        ours, theirs = (
            model.eval().predict(batch, samples)[0].pred_instances.bboxes
            for model in (found, expected)
        )
    assert torch.equal(ours, theirs)


def test_names_of_recomputed_parts() -> None:
    for settings in (
        dict(backbone_cp=True, neck_cp=True),
        dict(ckpt_backbone=True, ckpt_neck=True),
    ):
        ddq = build(config('ddq', **settings))
        assert is_recomputed(ddq.backbone)
        assert is_recomputed(ddq.neck)
    ddq = build(config('ddq', neck_cp=True))
    assert not is_recomputed(ddq.backbone)
    assert is_recomputed(ddq.neck)


def test_less_than_no_recomputed_layer_is_none() -> None:
    dino = build(config('dino', decoder__num_cp=-1, encoder__num_cp=-1))
    layers = [*dino.decoder.layers, *dino.encoder.layers]
    assert not any(is_recomputed(layer) for layer in layers)


@pytest.mark.parametrize('kind', ['attention', 'convolution'])
def test_checkpointing_of_the_refiners(kind: str) -> None:
    """The same results and gradients, from fewer tensors that are kept."""
    modules, saved = [], []
    for with_cp in (True, False):
        torch.manual_seed(0)
        modules.append(
            RegionalCrossAttention(8, 2, 2, roi_size=2, with_cp=with_cp)
            if kind == 'attention'
            else RegionalDynamicConv(
                in_channels=8,
                feat_channels=4,
                input_feat_shape=2,
                with_cp=with_cp,
            )
        )
    inputs = torch.randn(5, 8), torch.randn(5, 4, 8)
    results = []
    for module in modules:
        sizes: list[int] = []
        query, regions = (x.clone().requires_grad_() for x in inputs)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor,
            lambda tensor: tensor,
        ):
            found = module(query, regions)
        saved.append(sum(sizes))
        found.square().sum().backward()
        results.append([found.detach(), query.grad, regions.grad])
    torch.testing.assert_close(*results)
    assert saved[0] < saved[1]


def test_dropout_of_dynamic_convolution() -> None:
    settings = dict(in_channels=8, feat_channels=4, input_feat_shape=2)
    plain = RegionalDynamicConv(**settings)
    dropping = RegionalDynamicConv(**settings, dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    query, regions = torch.randn(200, 8), torch.randn(200, 4, 8)
    expected = plain(query, regions)
    found = dropping(query, regions)
    is_kept = found != 0
    assert 0.4 < is_kept.sum() / (expected != 0).sum() < 0.6
    torch.testing.assert_close(found[is_kept], 2 * expected[is_kept])
    assert torch.equal(dropping.eval()(query, regions), expected)
    dino = build(config('dino', decoder__layer_cfg__dy_conv_cfg__dropout=0.1))
    assert [layer.dy_conv.dropout.p for layer in dino.decoder.layers] == [
        0.1,
        0.1,
    ]


SIZE = 'decoder__bbox_roi_extractor__roi_layer__output_size'
LAYER = 'decoder__layer_cfg__'


def test_regions_of_another_size() -> None:
    settings = {SIZE: 5, f'{LAYER}dy_conv_cfg__input_feat_shape': 5}
    losses = build_model(config('dino', **settings)).loss(*toy_batch())
    assert losses['hpr_0_loss_cls'].isfinite()


@pytest.mark.parametrize(
    ('base', 'changes', 'message'),
    [
        (
            'dino',
            dict(dn_cfg__label_noise_scale=3),
            'label_noise_scale=3 should be twice the probability of a wrong '
            'label, 0 to 2',
        ),
        (
            'dino',
            dict(dn_cfg__group_cfg__num_dn_query=5),
            'model.dn_cfg.group_cfg.num_dn_query: group_cfg takes no '
            "'num_dn_query': did you mean num_dn_queries?",
        ),
        (
            'ddq',
            dict(dqs_cfg__max_num=5),
            "model.dqs_cfg.max_num: dqs_cfg takes no 'max_num'; it takes "
            'iou_threshold, type.',
        ),
        (
            'dino',
            {f'{LAYER}initial_weights': [1, 1]},
            'initial_weights=[1, 1] should have three weights',
        ),
        (
            'dino',
            {SIZE: 5},
            'dy_conv_cfg.input_feat_shape=7 expects regions of 7 x 7 points, '
            'but model.decoder.bbox_roi_extractor.roi_layer.output_size '
            'makes them 5 x 5',
        ),
        (
            'dino',
            {f'{LAYER}regional_ca_cfg__roi_size': 5},
            'regional_ca_cfg.roi_size=5 expects regions of 5 x 5 points',
        ),
        ('dino', {SIZE: (7, 5)}, 'makes them 7 x 5'),
    ],
)
def test_settings_that_cannot_work(
    base: str, changes: dict, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        build(config(base, **changes))


def test_distinct_queries_by_default() -> None:
    for settings in (None, dict(type='nms'), dict(iou_threshold=0.8)):
        ddq = config('ddq')
        # As it comes from a config that inherits one of mmdet's.
        ddq.dqs_cfg = settings and dict(settings, _scope_='mmdet')
        assert build(ddq).decoder.iou_threshold == 0.8


def test_neck_and_backbone_have_two_names_in_ddq() -> None:
    names = dict(backbone_cp=True, ckpt_backbone=False, neck_cp=True)
    model = build_model(config('ddq', **names))
    for part in (model.backbone, model.neck):
        assert 'forward' in vars(part)


def test_a_detector_may_have_no_neck() -> None:
    changes = dict(
        neck=None,
        num_feature_levels=1,
        decoder__bbox_roi_extractor__featmap_strides=[16],
        decoder__layer_cfg__cross_attn_cfg__num_levels=1,
        encoder__layer_cfg__self_attn_cfg__num_levels=1,
        backbone__depth=18,
        backbone__base_channels=64,
        backbone__norm_cfg__type='BN',
        backbone__out_indices=[2],
    )
    model = build_model(config('dino', **changes)).train()
    losses = model.loss(*toy_batch())
    assert sum(losses.values()).isfinite()
    with pytest.raises(UserError, match=r'needs a model\.neck'):
        build_model(config('dino', ckpt_neck=True, **changes))


def test_points_have_no_regions() -> None:
    host = 'h_detr/h-detr_r50_one-stage-refine_8xb2-50e_coco.py'
    fragment = CONFIGS / '_base_' / 'models' / 'proposal_refiner.py'
    whole = Config(dict(model=toy_model_config(host)))
    refiners = Config.fromfile(fragment).proposal_refiner.to_dict()
    whole.merge_from_dict(dict(model=refiners))
    with pytest.raises(UserError, match='as_two_stage=True'):
        build_model(whole.model)
