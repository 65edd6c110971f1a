# Copyright (c) mmdetr authors. All rights reserved.
"""What names and shapes tell about a model, in words."""

import pytest

from project.checkpoints.conversion import convert_state_dict
from tests.helpers.checkpoints import numbered_weights, read_keys

EXPECTED = {
    'h_detr/authors_swin_large_hybrid_tricks': (
        'swin-l, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 1800'
    ),
    'h_detr/authors_r50_hybrid_tricks': (
        'r50, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 1800'
    ),
    'h_detr/authors_r50_hybrid_notricks': (
        'r50, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 0'
    ),
    'h_detr/authors_r101_hybrid_tricks': (
        'r101, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 1800'
    ),
    'h_detr/authors_r50_one_stage': (
        'r50, one stage, shared heads, feature levels: 4, '
        'rows of the query table: 300'
    ),
    'h_detr/authors_r50_one_stage_refine': (
        'r50, one stage, box refinement, feature levels: 4, '
        'rows of the query table: 300'
    ),
    'h_detr/authors_r50_one_stage_single_scale': (
        'r50, one stage, shared heads, feature levels: 1, '
        'rows of the query table: 300'
    ),
    'h_detr/authors_swin_small_hybrid_tricks': (
        'swin-s, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 1800'
    ),
    'h_detr/authors_swin_large_hybrid_tricks_n900': (
        'swin-l, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 2400'
    ),
    'h_detr/detrex_r50_two_stage': (
        'r50, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 1800'
    ),
    'h_detr/detrex_swin_tiny_two_stage': (
        'swin-t, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 1800'
    ),
    'anchor_detr/anchor_detr_r101_50ep': (
        'r101, one stage, shared heads, feature levels: 1, '
        'rows of the query table: 300, patterns, anchor points'
    ),
    'rank_detr/swin_large_36ep': (
        'swin-l, two stages, box refinement, feature levels: 4, '
        'rows of the query table: 1800, query rank layer, '
        'rank-adaptive class head'
    ),
    'deta/improved_baseline': (
        'r50, two stages, box refinement, feature levels: 5, '
        'rows of the query table: 0, memory in the queries'
    ),
    'deta/detrex_deta_swin_large_finetune_24ep': (
        'swin-l, two stages, box refinement, feature levels: 5, '
        'rows of the query table: 0, memory in the queries'
    ),
    'dn_detr/dn_detr_r101_dc5_3pat': (
        'r101, one stage, box refinement, feature levels: 1, '
        'rows of the query table: 300, '
        'denoising queries, dense encoder, dense decoder, patterns'
    ),
    'dn_detr/detrex_dn_detr_r50_dc5': (
        'r50, one stage, box refinement, feature levels: 1, '
        'rows of the query table: 300, '
        'denoising queries, dense encoder, dense decoder'
    ),
    'dn_detr/dn_dab_deformable_detr_r50_v2': (
        'r50, one stage, box refinement, feature levels: 4, '
        'rows of the query table: 300, denoising queries'
    ),
    'dn_detr/dn_dab_deformable_encoder_only_r50_3pat': (
        'r50, one stage, box refinement, feature levels: 4, '
        'rows of the query table: 300, denoising queries, '
        'dense decoder, patterns'
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
    assert convert_state_dict(weights).architecture == EXPECTED[listing]


def test_another_backbone_is_named_in_words():
    weights = numbered_weights(read_keys('h_detr/detrex_r50_two_stage'))
    shallow = {k: v for k, v in weights.items() if 'res4.5.' not in k}
    words = convert_state_dict(shallow).architecture
    assert words.startswith('a ResNet with blocks (3, 4, 5, 3), two stages')
