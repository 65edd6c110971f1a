# Copyright (c) mmdetr authors. All rights reserved.
"""Weights are compared with the model that a config builds."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from mmengine import Config

from project.checkpoints.conversion import convert_state_dict, for_finetuning
from project.checkpoints.description import backbone_of
from project.checkpoints.layouts.own_names import is_dino
from project.checkpoints.model_layout import build_on_meta, model_layout
from project.checkpoints.recognition import OWN_LAYOUTS
from project.checkpoints.shipped_configs import (
    fitting_configs,
    nearest_config,
    shipped_configs,
)
from project.checkpoints.verification import check_model
from project.utils.errors import UserError
from project.utils.paths import config_path
from tests.helpers.checkpoints import (
    key_listings,
    numbered_weights,
    read_keys,
)
from tests.helpers.configs import CONFIGS

R50 = 'h_detr/h-detr_r50_8xb2-12e_coco.py'
HYBRID = 'h_detr/authors_r50_hybrid_tricks'


@cache
def layout_of(name, num_classes=None):
    return model_layout(config_path(name), num_classes)


def converted_from(listing):
    return convert_state_dict(numbered_weights(read_keys(listing)))


SHIPPED = sorted(
    f'{path.parent.name}/{path.name}'
    for path in CONFIGS.glob('*_detr/*.py')
    # Weights for Objects365 are those of the config to fine-tune them with.
    if not path.stem.endswith('_objects365')
) + sorted(
    f'{folder}/{path.name}'
    for folder in ('deta', 'hpr')
    for path in (CONFIGS / folder).glob('*_coco*.py')
)


@pytest.mark.parametrize('name', SHIPPED)
def test_every_shipped_config_is_considered_for_its_own_weights(name):
    """By its place in the metafile and the backbone that its name says."""
    weights = {
        tensor: torch.empty(shape, device='meta')
        for tensor, shape in layout_of(name).shapes.items()
    }
    layout = OWN_LAYOUTS[is_dino(weights)]
    assert name in shipped_configs(layout.configs, backbone_of(weights))


@pytest.mark.parametrize('listing', key_listings())
def test_released_weights_fit_the_configs_that_are_named(listing):
    converted = converted_from(listing)
    configs = fitting_configs(converted)
    assert configs
    for name in configs:
        check_model(converted, layout_of(name))


@pytest.mark.parametrize(
    'listing',
    ['h_detr/detrex_swin_tiny_two_stage', 'h_detr/authors_r50_one_stage'],
)
def test_what_fits_also_loads(listing):
    converted = converted_from(listing)
    config = Config.fromfile(config_path(fitting_configs(converted)[0]))
    model = build_on_meta(config.model)
    model.load_state_dict(converted.state_dict, strict=True, assign=True)


@pytest.mark.parametrize(
    ('listing', 'expected'),
    [
        (HYBRID, ['r50_8xb2-12e', 'r50_8xb2-36e', 'r50_8xb2-24e']),
        (
            'h_detr/authors_swin_large_hybrid_tricks_n900',
            ['swin-l_900q_8xb2-12e', 'swin-l_900q_8xb2-36e'],
        ),
        ('h_detr/authors_r50_one_stage', ['r50_one-stage-baseline_8xb2-50e']),
        (
            'h_detr/authors_r50_one_stage_refine',
            ['r50_one-stage-refine_8xb2-50e'],
        ),
        (
            'h_detr/detrex_swin_tiny_two_stage',
            ['swin-t_8xb2-12e', 'swin-t_8xb2-36e'],
        ),
    ],
)
def test_fitting_configs(listing, expected):
    assert fitting_configs(converted_from(listing)) == tuple(
        f'h_detr/h-detr_{name}_coco.py' for name in expected
    )


def test_dilation_leaves_no_trace():
    configs = fitting_configs(
        converted_from('anchor_detr/anchor_detr_r101_dc5_50ep')
    )
    assert configs == tuple(
        f'anchor_detr/anchor-detr_{name}_{batch}-50e_coco.py'
        for batch in ('8xb2', '8xb1')
        for name in ('r101', 'r101-dc5')
    )


@pytest.mark.parametrize(
    ('listing', 'authors', 'config'),
    [
        ('h_detr/detrex_r50_two_stage', HYBRID, R50),
        (
            'deta/detrex_deta_r50_5scale_12ep',
            'deta/deta',
            'deta/deta_r50_5scale_8xb2-12e_coco.py',
        ),
    ],
)
def test_weights_of_detrex_fit_its_numerics_first(listing, authors, config):
    first, *rest = fitting_configs(converted_from(listing))
    assert first == config.replace('_coco', '_coco-detrex')
    assert config in rest
    theirs = fitting_configs(converted_from(authors))
    assert theirs[0] == config
    assert first not in theirs


@pytest.mark.parametrize(
    ('listing', 'config'),
    [
        ('deta_2x', 'r50_5scale_8xb2-24e'),
        ('improved_baseline', 'r50_improved-baseline_8xb2-50e'),
        (
            'detrex_improved_deformable_detr_baseline_50ep',
            'r50_improved-baseline_8xb2-50e',
        ),
        ('deta_swin_ft', 'swin-l_5scale_16xb1-24e'),
        ('detrex_deta_swin_large_finetune_24ep', 'swin-l_5scale_16xb1-24e'),
    ],
)
def test_configs_of_deta_are_recognised(listing, config):
    """Though DETA and its baseline have the same weights."""
    configs = fitting_configs(converted_from(f'deta/{listing}'))
    assert f'deta/deta_{config}_coco.py' in configs


@pytest.mark.parametrize(
    ('listing', 'first'),
    [
        ('dn_detr_r50', 'dn-detr_r50_8xb2-50e_coco'),
        ('dn_detr_r101', 'dn-detr_r101_8xb2-50e_coco'),
        ('dn_detr_r50_dc5_3pat', 'dn-detr_r50-dc5_3pat_16xb1-12e_coco'),
        ('detrex_dn_detr_r50', 'dn-detr_r50_8xb2-50e_coco-detrex'),
        ('detrex_dn_detr_r50_dc5', 'dn-detr_r50-dc5_16xb1-50e_coco-detrex'),
        (
            'dn_dab_deformable_detr_r50_v2',
            'dn-deformable-detr_r50_8xb2-50e_coco',
        ),
        (
            'detrex_dn_deformable_detr_r50',
            'dn-deformable-detr_r50_8xb2-50e_coco-detrex',
        ),
        (
            'dn_dab_deformable_encoder_only_r101_3pat',
            'dn-deformable-encoder-detr_r101_3pat_16xb1-12e_coco',
        ),
    ],
)
def test_config_named_first_for_dn_detr(listing, first):
    converted = converted_from(f'dn_detr/{listing}')
    assert fitting_configs(converted)[0] == f'dn_detr/{first}.py'


def test_other_query_counts_fit_no_shipped_config():
    weights = numbered_weights(read_keys(HYBRID))
    weights['query_embed.weight'] = weights['query_embed.weight'][:400]
    converted = convert_state_dict(weights)
    assert fitting_configs(converted) == ()
    assert nearest_config(converted) == R50
    with pytest.raises(
        UserError,
        match=r'1 of another shape: query_embed\.weight \[400, 256\] instead '
        r'of \[1800, 256\]$',
    ):
        check_model(converted, layout_of(R50))


def test_all_differences_are_told_in_the_words_of_the_source():
    converted = converted_from(HYBRID)
    weights = dict(converted.state_dict)
    del weights['decoder.layers.3.norms.0.weight']
    weights['pos_trans_norm.bias'] = torch.ones(256)
    weights['reference_points_fc.bias'] = torch.ones(2)
    broken = replace(
        converted,
        state_dict=weights,
        origins={
            **converted.origins,
            'reference_points_fc.bias': 'transformer.reference_points.bias',
        },
    )
    with pytest.raises(UserError) as refusal:
        check_model(broken, layout_of(R50))
    assert str(refusal.value).endswith(
        'names 1 missing: transformer.decoder.layers.3.norm2.weight; 1 '
        'unknown: transformer.reference_points.bias; 1 of another shape: '
        'transformer.pos_trans_norm.bias [256] instead of [512]'
    )


@pytest.mark.parametrize('lost_by', ['weights', 'model'])
def test_shared_and_separate_heads_do_not_mix(lost_by):
    """Their names and shapes are the same."""
    shared = 'h_detr/h-detr_r50_one-stage-baseline_8xb2-50e_coco.py'
    apart = 'h_detr/h-detr_r50_one-stage-refine_8xb2-50e_coco.py'
    if lost_by == 'weights':
        weights, config = 'h_detr/authors_r50_one_stage_refine', shared
    else:
        weights, config = 'h_detr/authors_r50_one_stage', apart
    assert layout_of(shared).shapes == layout_of(apart).shapes
    with pytest.raises(UserError, match=r'has (one|a) head for .* the check'):
        check_model(converted_from(weights), layout_of(config))


def test_classes_must_agree():
    converted = converted_from(HYBRID)
    five = layout_of(R50, num_classes=5)
    with pytest.raises(
        UserError, match=r'has 5 classes, .* 80: give --num-classes 5'
    ):
        check_model(converted, five)
    check_model(for_finetuning(converted, 5), five)


def test_class_names_of_a_config_count(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = [{str(config_path(R50))!r}]\nclasses = ('cat', 'dog')\n"
    )
    layout = model_layout(config)
    assert layout.num_classes == 2
    assert layout.shapes['bbox_head.cls_branches.6.bias'] == (2,)


def test_configs_that_cannot_be_used(tmp_path):
    with pytest.raises(UserError, match=r'none\.py does not exist'):
        model_layout(tmp_path / 'none.py')
    empty = tmp_path / 'empty.py'
    empty.write_text('max_epochs = 12\n')
    with pytest.raises(UserError, match=r'empty\.py has no model'):
        model_layout(empty)
