# Copyright (c) mmdetr authors. All rights reserved.
"""Every released layout is mapped, completely and to the right names."""

import pytest
import torch

from project.checkpoints.conversion import convert_state_dict, for_finetuning
from project.checkpoints.recognition import LAYOUTS, recognise
from project.utils.errors import UserError
from tests.helpers.checkpoints import (
    key_listings,
    number_of,
    numbered_weights,
    read_keys,
)

HYBRID = 'h_detr/authors_r50_hybrid_tricks'
DETREX = 'h_detr/detrex_r50_two_stage'
PLAIN = 'h_detr/authors_r50_one_stage'

# Where the listings do not say it.
SOURCES = dict(rank_detr='authors', anchor_detr='detrex', deta='authors')

# Written down from the sources' modules and mmdet's, one of each kind.
PAIRS = {
    'h_detr/authors_r50_hybrid_tricks': {
        'backbone.0.body.bn1.running_var': 'backbone.bn1.running_var',
        'backbone.0.body.layer3.0.downsample.1.bias': (
            'backbone.layer3.0.downsample.1.bias'
        ),
        'input_proj.1.0.bias': 'neck.convs.1.conv.bias',
        'input_proj.2.1.weight': 'neck.convs.2.gn.weight',
        'input_proj.3.1.bias': 'neck.extra_convs.0.gn.bias',
        'query_embed.weight': 'query_embedding.weight',
        'transformer.level_embed': 'level_embed',
        'transformer.encoder.layers.4.norm2.bias': (
            'encoder.layers.4.norms.1.bias'
        ),
        'transformer.decoder.layers.1.norm2.weight': (
            'decoder.layers.1.norms.0.weight'
        ),
        'transformer.decoder.layers.1.norm1.weight': (
            'decoder.layers.1.norms.1.weight'
        ),
        'transformer.decoder.layers.1.norm3.weight': (
            'decoder.layers.1.norms.2.weight'
        ),
        'transformer.decoder.layers.2.self_attn.in_proj_bias': (
            'decoder.layers.2.self_attn.attn.in_proj_bias'
        ),
        'transformer.decoder.layers.2.cross_attn.value_proj.bias': (
            'decoder.layers.2.cross_attn.value_proj.bias'
        ),
        'transformer.decoder.layers.5.linear2.bias': (
            'decoder.layers.5.ffn.layers.1.bias'
        ),
        'transformer.enc_output_norm.bias': 'memory_trans_norm.bias',
        'transformer.pos_trans.weight': 'pos_trans_fc.weight',
        'class_embed.6.bias': 'bbox_head.cls_branches.6.bias',
        'bbox_embed.3.layers.2.weight': 'bbox_head.reg_branches.3.4.weight',
    },
    'h_detr/detrex_swin_tiny_two_stage': {
        'backbone.patch_embed.proj.bias': (
            'backbone.patch_embed.projection.bias'
        ),
        'backbone.layers.2.blocks.5.attn.qkv.weight': (
            'backbone.stages.2.blocks.5.attn.w_msa.qkv.weight'
        ),
        'backbone.layers.2.blocks.5.mlp.fc2.bias': (
            'backbone.stages.2.blocks.5.ffn.layers.1.bias'
        ),
        'backbone.norm3.weight': 'backbone.norm3.weight',
        'neck.extra_convs.0.norm.bias': 'neck.extra_convs.0.gn.bias',
        'transformer.level_embeds': 'level_embed',
        'transformer.encoder.layers.0.attentions.0.output_proj.bias': (
            'encoder.layers.0.self_attn.output_proj.bias'
        ),
        'transformer.decoder.layers.0.attentions.0.attn.out_proj.bias': (
            'decoder.layers.0.self_attn.attn.out_proj.bias'
        ),
        'transformer.decoder.layers.0.attentions.1.attention_weights.bias': (
            'decoder.layers.0.cross_attn.attention_weights.bias'
        ),
        'transformer.decoder.layers.3.ffns.0.layers.0.0.weight': (
            'decoder.layers.3.ffn.layers.0.0.weight'
        ),
        'transformer.decoder.layers.3.norms.1.bias': (
            'decoder.layers.3.norms.1.bias'
        ),
    },
    'h_detr/detrex_r50_two_stage': {
        'backbone.stem.conv1.norm.weight': 'backbone.bn1.weight',
        'backbone.res2.0.shortcut.weight': (
            'backbone.layer1.0.downsample.0.weight'
        ),
        'backbone.res5.0.shortcut.norm.running_mean': (
            'backbone.layer4.0.downsample.1.running_mean'
        ),
        'backbone.res4.5.conv3.norm.bias': 'backbone.layer3.5.bn3.bias',
    },
    'rank_detr/r50_12ep': {
        'transformer.decoder.rank_aware_content_query.4.weight': (
            'decoder.rank_aware_content_query.4.weight'
        ),
        'transformer.decoder.pre_racq_trans.0.bias': (
            'decoder.pre_racq_trans.0.bias'
        ),
        'transformer.decoder.post_racq_trans.3.weight': (
            'decoder.post_racq_trans.3.weight'
        ),
        'rank_adaptive_classhead_emb.5.weight': (
            'bbox_head.rank_adaptive_classhead_emb.5.weight'
        ),
    },
    'dn_detr/dn_detr_r50_dc5_3pat': {
        'input_proj.bias': 'neck.convs.0.conv.bias',
        'transformer.encoder.query_scale.layers.1.weight': (
            'encoder.query_scale.layers.1.weight'
        ),
        'transformer.encoder.layers.3.self_attn.out_proj.bias': (
            'encoder.layers.3.self_attn.attn.out_proj.bias'
        ),
        'transformer.encoder.layers.3.activation.weight': (
            'encoder.layers.3.ffn.layers.0.1.weight'
        ),
        'transformer.decoder.layers.2.sa_kpos_proj.weight': (
            'decoder.layers.2.self_attn.kpos_proj.weight'
        ),
        'transformer.decoder.layers.0.ca_qpos_proj.bias': (
            'decoder.layers.0.cross_attn.qpos_proj.bias'
        ),
        'transformer.decoder.layers.2.ca_qpos_sine_proj.weight': (
            'decoder.layers.2.cross_attn.qpos_sine_proj.weight'
        ),
        'transformer.decoder.layers.2.cross_attn.out_proj.weight': (
            'decoder.layers.2.cross_attn.out_proj.weight'
        ),
        # In the order of the steps, unlike in the deformable form.
        'transformer.decoder.layers.2.norm1.weight': (
            'decoder.layers.2.norms.0.weight'
        ),
        'transformer.decoder.layers.2.norm2.weight': (
            'decoder.layers.2.norms.1.weight'
        ),
        'transformer.decoder.norm.bias': 'decoder.post_norm.bias',
        'transformer.decoder.ref_anchor_head.layers.1.bias': (
            'decoder.ref_anchor_head.layers.1.bias'
        ),
        'transformer.patterns.weight': 'patterns.weight',
        'refpoint_embed.weight': 'query_embedding.weight',
        'bbox_embed.layers.2.bias': 'bbox_head.fc_reg.layers.2.bias',
        'class_embed.weight': 'bbox_head.fc_cls.weight',
        'label_enc.weight': 'dn_query_generator.label_embedding.weight',
    },
    'dn_detr/detrex_dn_detr_r50': {
        'transformer.decoder.layers.4.attentions.0.key_content_proj.bias': (
            'decoder.layers.4.self_attn.kcontent_proj.bias'
        ),
        'transformer.decoder.layers.4.attentions.1.query_pos_sine_proj.bias': (
            'decoder.layers.4.cross_attn.qpos_sine_proj.bias'
        ),
        'transformer.decoder.layers.4.ffns.0.activation.weight': (
            'decoder.layers.4.ffn.layers.0.1.weight'
        ),
        'transformer.decoder.post_norm_layer.weight': (
            'decoder.post_norm.weight'
        ),
        'anchor_box_embed.weight': 'query_embedding.weight',
        'denoising_generator.label_encoder.weight': (
            'dn_query_generator.label_embedding.weight'
        ),
    },
    'dn_detr/dn_dab_deformable_detr_r50_v2': {
        'tgt_embed.weight': 'tgt_embed.weight',
        'refpoint_embed.weight': 'refpoint_embed.weight',
        'transformer.decoder.ref_point_head.layers.0.weight': (
            'decoder.ref_point_head.layers.0.weight'
        ),
        'transformer.decoder.layers.1.norm2.weight': (
            'decoder.layers.1.norms.0.weight'
        ),
        'bbox_embed.3.layers.2.weight': 'bbox_head.reg_branches.3.4.weight',
    },
    'dn_detr/dn_dab_deformable_encoder_only_r50_3pat': {
        'transformer.encoder.layers.1.self_attn.value_proj.bias': (
            'encoder.layers.1.self_attn.value_proj.bias'
        ),
        'transformer.encoder.layers.1.norm2.bias': (
            'encoder.layers.1.norms.1.bias'
        ),
        'transformer.decoder.layers.1.norm2.weight': (
            'decoder.layers.1.norms.1.weight'
        ),
        'transformer.decoder.layers.5.ca_out_v_proj.weight': (
            'decoder.layers.5.cross_attn.out_proj.weight'
        ),
        'transformer.decoder.layers.5.lvl_attn.bias': (
            'decoder.layers.5.cross_attn.level_weights.bias'
        ),
    },
    'anchor_detr/anchor_detr_r101_dc5_50ep': {
        'backbone.body.layer3.22.bn2.running_mean': (
            'backbone.layer3.22.bn2.running_mean'
        ),
        'input_proj.0.bias': 'neck.convs.0.conv.bias',
        'input_proj.1.weight': 'neck.convs.0.gn.weight',
        'transformer.pattern.weight': 'patterns.weight',
        'transformer.position.weight': 'anchor_points.weight',
        'transformer.adapt_pos1d.2.weight': 'axis_pos_mlp.2.weight',
        'transformer.adapt_pos2d.0.bias': 'point_pos_mlp.0.bias',
        'transformer.encoder_layers.3.self_attn.in_proj_weight': (
            'encoder.layers.3.self_attn.in_proj_weight'
        ),
        'transformer.encoder_layers.3.norm1.bias': (
            'encoder.layers.3.norms.0.bias'
        ),
        'transformer.encoder_layers.3.ffn.norm2.bias': (
            'encoder.layers.3.norms.1.bias'
        ),
        'transformer.decoder_layers.0.self_attn.out_proj.weight': (
            'decoder.layers.0.self_attn.attn.out_proj.weight'
        ),
        'transformer.decoder_layers.0.cross_attn.out_proj.weight': (
            'decoder.layers.0.cross_attn.out_proj.weight'
        ),
        'transformer.decoder_layers.1.norm2.weight': (
            'decoder.layers.1.norms.0.weight'
        ),
        'transformer.decoder_layers.1.norm1.weight': (
            'decoder.layers.1.norms.1.weight'
        ),
        'transformer.decoder_layers.1.ffn.norm2.weight': (
            'decoder.layers.1.norms.2.weight'
        ),
        'transformer.decoder_layers.5.ffn.linear1.bias': (
            'decoder.layers.5.ffn.layers.0.0.bias'
        ),
        'transformer.class_embed.4.weight': (
            'bbox_head.cls_branches.4.weight'
        ),
        'transformer.bbox_embed.2.layers.2.bias': (
            'bbox_head.reg_branches.2.4.bias'
        ),
    },
    'deta/deta': {
        'transformer.pix_trans.weight': 'pix_trans_fc.weight',
        'transformer.pix_trans_norm.bias': 'pix_trans_norm.bias',
        'input_proj.3.0.weight': 'neck.extra_convs.0.conv.weight',
        'input_proj.4.0.bias': 'neck.extra_convs.1.conv.bias',
        'input_proj.4.1.weight': 'neck.extra_convs.1.gn.weight',
        'transformer.decoder.layers.5.norm2.bias': (
            'decoder.layers.5.norms.0.bias'
        ),
    },
    'deta/detrex_deta_swin_large_finetune_24ep': {
        'transformer.pix_trans.bias': 'pix_trans_fc.bias',
        'neck.extra_convs.1.norm.weight': 'neck.extra_convs.1.gn.weight',
        'backbone.layers.2.blocks.17.attn.proj.bias': (
            'backbone.stages.2.blocks.17.attn.w_msa.proj.bias'
        ),
    },
    'h_detr/authors_r50_one_stage_refine': {
        'transformer.reference_points.weight': 'reference_points_fc.weight',
    },
}


# Layouts of DN-DETR's listings, by how their names begin; longest first.
DN_LAYOUTS = {
    'detrex_dn_deformable': 'detrex_deformable',
    'detrex_dn_detr_r50_dc5': 'detrex_dc5',
    'detrex': 'detrex',
    'dn_dab_deformable_encoder_only': 'authors_deformable_encoder',
    'dn_dab_deformable': 'authors_deformable',
    'dn_detr': 'authors',
}


def layout_name(listing: str, keys: dict) -> str:
    system, _, name = listing.partition('/')
    if system == 'dn_detr':
        source = next(DN_LAYOUTS[x] for x in DN_LAYOUTS if name.startswith(x))
    else:
        source = keys.get('layout', SOURCES.get(system))
    return f'{system}/{source}'


@pytest.mark.parametrize('listing', key_listings())
def test_every_tensor_of_a_released_layout_has_its_place(listing):
    keys = read_keys(listing)
    weights = numbered_weights(keys)
    converted = convert_state_dict(weights)
    layout = converted.layout
    assert layout.name == layout_name(listing, keys)
    # Each source name is mapped once or an alias, and nothing else is there.
    mapped, aliases = set(converted.origins.values()), set(converted.aliases)
    assert mapped | aliases == weights.keys()
    assert len(converted.origins) + len(aliases) == len(weights)
    for target, name in converted.origins.items():
        assert layout.source_name(target) == name
        number = number_of(keys['aliases'].get(name, name))
        assert (converted.state_dict[target] == number).all(), target
    made = converted.state_dict.keys() - converted.origins.keys()
    assert made == set(converted.filled)


@pytest.mark.parametrize('listing', key_listings())
def test_aliases_are_those_of_the_listing(listing):
    keys = read_keys(listing)
    converted = convert_state_dict(numbered_weights(keys))
    dropped = set(converted.aliases)
    kept = {
        converted.origins[name]
        for name in converted.tied
        if converted.origins[name] in keys['aliases']
    }
    assert dropped | kept == keys['aliases'].keys()


@pytest.mark.parametrize('listing', PAIRS)
def test_names(listing):
    weights = numbered_weights(read_keys(listing))
    origins = convert_state_dict(weights).origins
    targets = {name: target for target, name in origins.items()}
    for name, target in PAIRS[listing].items():
        assert targets[name] == target


@pytest.mark.parametrize(
    'listings',
    [
        (HYBRID, DETREX),
        ('deta/deta', 'deta/detrex_deta_r50_5scale_12ep'),
        ('deta/deta_swin_ft', 'deta/detrex_deta_swin_large_finetune_24ep'),
    ],
)
def test_both_sources_have_the_same_model(listings):
    ours = [
        convert_state_dict(numbered_weights(read_keys(name)))
        for name in listings
    ]
    shapes = [
        {name: t.shape for name, t in converted.state_dict.items()}
        for converted in ours
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('listing', [HYBRID, 'deta/deta'])
def test_category_ids_become_the_classes_of_coco(listing):
    weights = numbered_weights(read_keys(listing))
    rows = torch.arange(91.0)
    weights |= {f'class_embed.{i}.bias': rows for i in range(7)}
    weights |= {
        f'transformer.decoder.class_embed.{i}.bias': rows for i in range(7)
    }
    converted = convert_state_dict(weights)
    assert (converted.source_classes, converted.num_classes) == (91, 80)
    heads = [
        converted.state_dict[f'bbox_head.cls_branches.{i}.bias'].tolist()
        for i in (0, 5, 6)
    ]
    assert heads[0] == heads[1]
    assert heads[0][:13] == [*range(1, 12), 13, 14]
    assert heads[0][-1] == 90
    assert heads[2] == list(range(80))
    kept = convert_state_dict(weights, num_classes=91)
    assert kept.num_classes == 91
    for i in (0, 6):
        bias = kept.state_dict[f'bbox_head.cls_branches.{i}.bias']
        assert torch.equal(bias, rows)


def test_eighty_classes_are_no_category_ids():
    weights = numbered_weights(read_keys(DETREX))
    assert convert_state_dict(weights, num_classes=80).num_classes == 80
    with pytest.raises(UserError, match=r'num_classes=91.* have 80 classes'):
        convert_state_dict(weights, num_classes=91)


def test_other_numbers_of_classes_stay():
    weights = numbered_weights(read_keys(HYBRID))
    for name in weights:
        if 'class_embed' in name:
            weights[name] = weights[name][:20]
    assert convert_state_dict(weights).num_classes == 20


@pytest.mark.parametrize(
    ('listing', 'alias', 'first'),
    [
        (
            HYBRID,
            'transformer.decoder.bbox_embed.2.layers.1.bias',
            'bbox_embed.2.layers.1.bias',
        ),
        (DETREX, 'transformer.decoder.class_embed.6.bias', 'class_embed.6.'),
        (PLAIN, 'class_embed.3.weight', 'class_embed.0.weight'),
        (
            'anchor_detr/anchor_detr_r50_50ep',
            'transformer.bbox_embed.5.layers.0.bias',
            'transformer.bbox_embed.0.layers.0.bias',
        ),
    ],
)
def test_aliases_that_differ_are_refused(listing, alias, first):
    weights = numbered_weights(read_keys(listing))
    weights[alias] = weights[alias] + 1
    with pytest.raises(
        UserError, match=f'1 pairs of names.* differ: {alias} and {first}'
    ):
        convert_state_dict(weights)


def test_an_alias_does_not_stand_for_a_lost_name():
    weights = numbered_weights(read_keys(HYBRID))
    del weights['class_embed.4.bias']
    with pytest.raises(UserError, match=r'1 names .*missing.*ed\.4\.bias'):
        convert_state_dict(weights)


def test_weights_without_their_aliases_are_complete():
    keys = read_keys(HYBRID)
    weights = numbered_weights(keys)
    full = convert_state_dict(weights)
    for alias in keys['aliases']:
        del weights[alias]
    stripped = convert_state_dict(weights)
    assert stripped.state_dict.keys() == full.state_dict.keys()
    assert stripped.architecture == full.architecture


def test_heads_of_one_stage_stay_shared_or_apart():
    plain = convert_state_dict(numbered_weights(read_keys(PLAIN)))
    assert len(plain.tied) == 6 * 8  # weight and bias of 1 + 3 layers
    assert all(name.startswith('bbox_head.') for name in plain.tied)
    refine = read_keys('h_detr/authors_r50_one_stage_refine')
    assert not convert_state_dict(numbered_weights(refine)).tied


def test_unknown_names_are_listed():
    weights = numbered_weights(read_keys(HYBRID))
    extra = {f'transformer.extra.{i}.weight': torch.ones(1) for i in range(14)}
    with pytest.raises(UserError) as refusal:
        convert_state_dict(weights | extra)
    message = str(refusal.value)
    assert '14 names of the checkpoint are unknown' in message
    assert message.count('transformer.extra.') == 10
    assert message.endswith('transformer.extra.9.weight and 4 more')


def test_counters_of_a_profiler_are_ignored():
    weights = numbered_weights(read_keys(DETREX))
    counters = {
        'total_ops': torch.zeros(1),
        'transformer.encoder.total_params': torch.zeros(1),
    }
    assert (
        convert_state_dict(weights | counters).origins
        == convert_state_dict(weights).origins
    )


def test_one_unknown_name_does_not_hide_the_layout():
    weights = numbered_weights(read_keys(DETREX))
    assert recognise(weights | {'surprise': torch.ones(1)}).name == (
        'h_detr/detrex'
    )


def test_a_longer_table_loses_what_it_does_not_explain(monkeypatch):
    """As DETA's names are those of H-DETR and some more."""
    from project.checkpoints import recognition
    from project.checkpoints.layouts.rules import Layout, Rule

    authors = LAYOUTS[0]
    extended = Layout(
        'toy/authors',
        'toy',
        (*authors.rules, Rule('transformer.extra.{leaf}', 'extra.{leaf}')),
        authors.aliases,
        authors.class_tensors,
        authors.configs,
        authors.max_per_img,
    )
    monkeypatch.setattr(recognition, 'LAYOUTS', (extended, *LAYOUTS))
    weights = numbered_weights(read_keys(HYBRID))
    assert recognise(weights) is authors
    more = {'transformer.extra.weight': torch.ones(1)}
    assert recognise(weights | more) is extended


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        (
            {'fc.weight': torch.ones(1)},
            r'none of the known layouts: its names are fc\.weight; known are '
            r'h_detr/authors .*; h_detr/detrex',
        ),
        (
            {'bbox_head.cls_branches.0.bias': torch.ones(80)},
            'names already: load it as it is',
        ),
    ],
)
def test_other_files_are_not_recognised(weights, message):
    with pytest.raises(UserError, match=message):
        recognise(weights)


def test_a_layout_can_be_named():
    weights = numbered_weights(read_keys(DETREX))
    assert convert_state_dict(weights, 'h_detr/detrex').layout is LAYOUTS[1]
    with pytest.raises(UserError, match="'dino'; expected one of h_detr/au"):
        convert_state_dict(weights, 'dino')


@pytest.mark.parametrize('listing', [HYBRID, 'deta/deta_swin_ft'])
def test_finetuning_changes_only_class_tensors(listing):
    converted = convert_state_dict(numbered_weights(read_keys(listing)))
    tuned = for_finetuning(converted, 5)
    assert tuned.num_classes == 5
    assert tuned.state_dict.keys() == converted.state_dict.keys()
    changed = {
        name
        for name, tensor in tuned.state_dict.items()
        if tensor is not converted.state_dict[name]
    }
    heads = {f'bbox_head.cls_branches.{i}' for i in range(7)}
    assert changed == {f'{h}.{leaf}' for h in heads for leaf in BOTH}
    assert {line.partition(':')[0] for line in tuned.renewed} == changed
    objectness = tuned.state_dict['bbox_head.cls_branches.6.weight']
    assert (objectness == number_of('class_embed.6.weight')).all()


BOTH = ('weight', 'bias')


def test_finetuning_starts_the_biases_of_ranks_at_zero():
    converted = convert_state_dict(
        numbered_weights(read_keys('rank_detr/r50_12ep'))
    )
    tuned = for_finetuning(converted, 5)
    for i in range(6):
        name = f'bbox_head.rank_adaptive_classhead_emb.{i}.weight'
        assert tuned.state_dict[name].shape == (1800, 5)
        assert (tuned.state_dict[name] == 0).all()
        assert f'{name}: fresh' in tuned.renewed


def test_finetuning_keeps_a_shared_head_shared():
    converted = convert_state_dict(
        numbered_weights(read_keys('anchor_detr/anchor_detr_r50_50ep'))
    )
    tuned = for_finetuning(converted, 5)
    assert tuned.tied == converted.tied
    assert len(tuned.renewed) == 12
    for leaf, shape in (('weight', (5, 256)), ('bias', (5,))):
        first, *others = (
            tuned.state_dict[f'bbox_head.cls_branches.{i}.{leaf}']
            for i in range(6)
        )
        assert first.shape == shape
        assert all(first.equal(other) for other in others)


DN_LISTINGS = [x for x in key_listings() if x.startswith('dn_detr/')]
LABELS = 'dn_query_generator.label_embedding.weight'


@pytest.mark.parametrize('listing', DN_LISTINGS)
def test_label_tables_become_those_of_coco(listing):
    """80 of 91 rows in the order of the ids, and the row of "no object"."""
    weights = numbered_weights(read_keys(listing))
    (name,) = (n for n in weights if 'label_enc' in n)
    rows = torch.arange(float(len(weights[name])))
    weights[name] = rows[:, None].expand(-1, 255)
    converted = convert_state_dict(weights)
    assert converted.num_classes == 80
    table = converted.state_dict[LABELS]
    assert table.shape == (81, 255)
    found = table[:, 0].tolist()
    if converted.source_classes == 91:
        assert found[:13] == [*range(1, 12), 13, 14]
        assert found[-2:] == [90, 91]
        assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & set(found)
    else:
        assert found == list(range(81))


def test_label_tables_without_their_prefix():
    """detrex's own converter drops it."""
    weights = numbered_weights(
        read_keys('dn_detr/detrex_dn_deformable_detr_r50')
    )
    prefix = 'denoising_generator.'
    renamed = {n.removeprefix(prefix): w for n, w in weights.items()}
    converted, expected = map(convert_state_dict, (renamed, weights))
    assert converted.layout is expected.layout
    assert converted.state_dict.keys() == expected.state_dict.keys()


@pytest.mark.parametrize('listing', DN_LISTINGS)
def test_finetuning_keeps_the_label_of_no_object(listing):
    converted = convert_state_dict(numbered_weights(read_keys(listing)))
    tuned = for_finetuning(converted, 5)
    changed = {
        name
        for name, tensor in tuned.state_dict.items()
        if tensor is not converted.state_dict[name]
    }
    assert LABELS in changed
    assert all(n == LABELS or '_cls.' in n or '.cls_' in n for n in changed)
    assert {line.partition(':')[0] for line in tuned.renewed} == changed
    table = tuned.state_dict[LABELS]
    assert table.shape == (6, 255)
    assert table[-1].equal(converted.state_dict[LABELS][-1])
    assert 0.8 < table[:-1].std() < 1.2


def test_finetuning_on_as_many_classes_changes_nothing():
    converted = convert_state_dict(numbered_weights(read_keys(DETREX)))
    assert for_finetuning(converted, 80) is converted


@pytest.mark.parametrize('num_classes', [0, -3])
def test_finetuning_needs_classes(num_classes):
    converted = convert_state_dict(numbered_weights(read_keys(DETREX)))
    with pytest.raises(UserError, match='at least 1'):
        for_finetuning(converted, num_classes)
