# Copyright (c) mmdetr authors. All rights reserved.
"""What names and shapes tell about a model."""

import pytest

from project.checkpoints.architecture import Architecture
from project.checkpoints.conversion import convert_state_dict
from tests.helpers.checkpoints import numbered_weights, read_keys

ONE_STAGE = dict(as_two_stage=False, with_box_refine=False)
DENOISING = 'denoising queries'
EXPECTED = {
    'h_detr/authors_r50_hybrid_tricks': Architecture('r50', 1800),
    'h_detr/authors_r50_hybrid_notricks': Architecture('r50', 0),
    'h_detr/authors_r101_hybrid_tricks': Architecture('r101', 1800),
    'h_detr/authors_r50_one_stage': Architecture('r50', 300, **ONE_STAGE),
    'h_detr/authors_r50_one_stage_refine': Architecture(
        'r50', 300, as_two_stage=False
    ),
    'h_detr/authors_r50_one_stage_single_scale': Architecture(
        'r50', 300, num_levels=1, **ONE_STAGE
    ),
    'h_detr/authors_swin_small_hybrid_tricks': Architecture('swin-s', 1800),
    'h_detr/authors_swin_large_hybrid_tricks_n900': Architecture(
        'swin-l', 2400
    ),
    'h_detr/detrex_r50_two_stage': Architecture('r50', 1800),
    'h_detr/detrex_swin_tiny_two_stage': Architecture('swin-t', 1800),
    'anchor_detr/anchor_detr_r101_50ep': Architecture(
        'r101',
        300,
        num_levels=1,
        **ONE_STAGE,
        parts=('patterns', 'anchor points'),
    ),
    'rank_detr/swin_large_36ep': Architecture(
        'swin-l',
        1800,
        parts=('query rank layer', 'rank-adaptive class head'),
    ),
    'deta/improved_baseline': Architecture(
        'r50', num_levels=5, parts=('memory in the queries',)
    ),
    'deta/detrex_deta_swin_large_finetune_24ep': Architecture(
        'swin-l', num_levels=5, parts=('memory in the queries',)
    ),
    'dn_detr/dn_detr_r101_dc5_3pat': Architecture(
        'r101',
        300,
        num_levels=1,
        as_two_stage=False,
        parts=(DENOISING, 'dense encoder', 'dense decoder', 'patterns'),
    ),
    'dn_detr/detrex_dn_detr_r50_dc5': Architecture(
        'r50',
        300,
        num_levels=1,
        as_two_stage=False,
        parts=(DENOISING, 'dense encoder', 'dense decoder'),
    ),
    'dn_detr/dn_dab_deformable_detr_r50_v2': Architecture(
        'r50', 300, as_two_stage=False, parts=(DENOISING,)
    ),
    'dn_detr/dn_dab_deformable_encoder_only_r50_3pat': Architecture(
        'r50',
        300,
        as_two_stage=False,
        parts=(DENOISING, 'dense decoder', 'patterns'),
    ),
}


@pytest.mark.parametrize(('listing', 'expected'), EXPECTED.items())
def test_architecture_of_released_weights(listing, expected):
    weights = numbered_weights(read_keys(listing))
    assert convert_state_dict(weights).architecture == expected


@pytest.mark.parametrize(
    'lost',
    [
        'backbone.0.body.patch_embed.proj.weight',
        'backbone.0.body.layers.0.blocks.0.norm1.weight',
        'backbone.0.body.layers.2.blocks.17.mlp.fc1.weight',
        'transformer.enc_output.weight',
        'class_embed.6.bias',
    ],
)
def test_one_lost_tensor_does_not_change_it(lost):
    listing = 'h_detr/authors_swin_large_hybrid_tricks'
    weights = numbered_weights(read_keys(listing))
    weights = {k: v for k, v in weights.items() if not k.endswith(lost)}
    converted = convert_state_dict(weights)
    assert converted.architecture == Architecture('swin-l', 1800)


def test_another_backbone_is_named_in_words():
    weights = numbered_weights(read_keys('h_detr/detrex_r50_two_stage'))
    shallow = {k: v for k, v in weights.items() if 'res4.5.' not in k}
    backbone = convert_state_dict(shallow).architecture.backbone
    assert backbone == 'a ResNet with blocks (3, 4, 5, 3)'


def test_distance_puts_the_backbone_first():
    swin = Architecture('swin-s', 0)
    others = [
        Architecture('r50', 0),
        Architecture('swin-s', 300, as_two_stage=False),
        Architecture('swin-s', 1800),
    ]
    assert sorted(others, key=swin.distance) == [
        others[2],
        others[1],
        others[0],
    ]
