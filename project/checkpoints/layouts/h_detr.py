# Copyright (c) mmdetr authors. All rights reserved.
"""Layouts of H-Deformable-DETR: the authors' repository and detrex."""

from project.checkpoints.class_tensors import linear_weight, prior_bias
from project.checkpoints.layouts.backbones import (
    detectron2_resnet,
    microsoft_swin,
    torchvision_resnet,
)
from project.checkpoints.layouts.rules import Alias, ClassTensor, Layout, Rule

_HEADS = (
    Rule('class_embed.{i}.{leaf}', 'bbox_head.cls_branches.{i}.{leaf}'),
    # mmdet counts the ReLUs between the linear layers, the sources do not.
    *(
        Rule(
            f'bbox_embed.{{i}}.layers.{k}.{{leaf}}',
            f'bbox_head.reg_branches.{{i}}.{2 * k}.{{leaf}}',
        )
        for k in range(3)
    ),
)

_QUERIES = (
    Rule('transformer.enc_output.{leaf}', 'memory_trans_fc.{leaf}'),
    Rule('transformer.enc_output_norm.{leaf}', 'memory_trans_norm.{leaf}'),
    Rule('transformer.pos_trans.{leaf}', 'pos_trans_fc.{leaf}'),
    Rule('transformer.pos_trans_norm.{leaf}', 'pos_trans_norm.{leaf}'),
    Rule('transformer.reference_points.{leaf}', 'reference_points_fc.{leaf}'),
)

_AUTHORS_NECK = (
    *(
        rule
        for k in range(3)
        for rule in (
            Rule(
                f'input_proj.{k}.0.{{leaf}}', f'neck.convs.{k}.conv.{{leaf}}'
            ),
            Rule(f'input_proj.{k}.1.{{leaf}}', f'neck.convs.{k}.gn.{{leaf}}'),
        )
    ),
    Rule('input_proj.3.0.{leaf}', 'neck.extra_convs.0.conv.{leaf}'),
    Rule('input_proj.3.1.{leaf}', 'neck.extra_convs.0.gn.{leaf}'),
)

_AUTHORS_TRANSFORMER = (
    Rule('query_embed.weight', 'query_embedding.weight'),
    Rule('transformer.level_embed', 'level_embed'),
    Rule(
        'transformer.encoder.layers.{i}.self_attn.{deform}.{leaf}',
        'encoder.layers.{i}.self_attn.{deform}.{leaf}',
    ),
    Rule(
        'transformer.encoder.layers.{i}.norm1.{leaf}',
        'encoder.layers.{i}.norms.0.{leaf}',
    ),
    Rule(
        'transformer.encoder.layers.{i}.norm2.{leaf}',
        'encoder.layers.{i}.norms.1.{leaf}',
    ),
    Rule(
        'transformer.decoder.layers.{i}.self_attn.{mha}',
        'decoder.layers.{i}.self_attn.attn.{mha}',
    ),
    Rule(
        'transformer.decoder.layers.{i}.cross_attn.{deform}.{leaf}',
        'decoder.layers.{i}.cross_attn.{deform}.{leaf}',
    ),
    # The authors number the decoder's norms by age: norm2 follows the
    # self-attention, which runs first, norm1 the cross-attention.
    Rule(
        'transformer.decoder.layers.{i}.norm2.{leaf}',
        'decoder.layers.{i}.norms.0.{leaf}',
    ),
    Rule(
        'transformer.decoder.layers.{i}.norm1.{leaf}',
        'decoder.layers.{i}.norms.1.{leaf}',
    ),
    Rule(
        'transformer.decoder.layers.{i}.norm3.{leaf}',
        'decoder.layers.{i}.norms.2.{leaf}',
    ),
    Rule(
        'transformer.{coder}.layers.{i}.linear1.{leaf}',
        '{coder}.layers.{i}.ffn.layers.0.0.{leaf}',
    ),
    Rule(
        'transformer.{coder}.layers.{i}.linear2.{leaf}',
        '{coder}.layers.{i}.ffn.layers.1.{leaf}',
    ),
)

_DETREX_NECK = (
    Rule('neck.convs.{i}.conv.{leaf}', 'neck.convs.{i}.conv.{leaf}'),
    Rule('neck.convs.{i}.norm.{leaf}', 'neck.convs.{i}.gn.{leaf}'),
    Rule(
        'neck.extra_convs.{i}.conv.{leaf}', 'neck.extra_convs.{i}.conv.{leaf}'
    ),
    Rule('neck.extra_convs.{i}.norm.{leaf}', 'neck.extra_convs.{i}.gn.{leaf}'),
)

_DETREX_TRANSFORMER = (
    Rule('query_embedding.weight', 'query_embedding.weight'),
    Rule('transformer.level_embeds', 'level_embed'),
    Rule(
        'transformer.encoder.layers.{i}.attentions.0.{deform}.{leaf}',
        'encoder.layers.{i}.self_attn.{deform}.{leaf}',
    ),
    Rule(
        'transformer.decoder.layers.{i}.attentions.0.attn.{mha}',
        'decoder.layers.{i}.self_attn.attn.{mha}',
    ),
    Rule(
        'transformer.decoder.layers.{i}.attentions.1.{deform}.{leaf}',
        'decoder.layers.{i}.cross_attn.{deform}.{leaf}',
    ),
    Rule(
        'transformer.{coder}.layers.{i}.norms.{k}.{leaf}',
        '{coder}.layers.{i}.norms.{k}.{leaf}',
    ),
    Rule(
        'transformer.{coder}.layers.{i}.ffns.0.layers.0.0.{leaf}',
        '{coder}.layers.{i}.ffn.layers.0.0.{leaf}',
    ),
    Rule(
        'transformer.{coder}.layers.{i}.ffns.0.layers.1.{leaf}',
        '{coder}.layers.{i}.ffn.layers.1.{leaf}',
    ),
)

# The decoder refines boxes with the heads, so it registers them once more.
_REGISTERED_TWICE = (
    Alias(
        'transformer.decoder.class_embed.{i}.{leaf}', 'class_embed.{i}.{leaf}'
    ),
    Alias(
        'transformer.decoder.bbox_embed.{i}.layers.{k}.{leaf}',
        'bbox_embed.{i}.layers.{k}.{leaf}',
    ),
)

# Without refinement (one stage only) the decoder has no heads, and the names
# class_embed.0, .1, ... stand for one module. mmdet keeps all these names.
_REFINEMENT = ('transformer.decoder.bbox_embed.', 'transformer.enc_output')
_SHARED_HEADS = (
    Alias('class_embed.{i}.{leaf}', 'class_embed.0.{leaf}', True, _REFINEMENT),
    Alias(
        'bbox_embed.{i}.layers.{k}.{leaf}',
        'bbox_embed.0.layers.{k}.{leaf}',
        True,
        _REFINEMENT,
    ),
)

_CLASS_TENSORS = (
    ClassTensor(
        'bbox_head.cls_branches.{i}.weight',
        linear_weight,
        decoder='decoder.layers.{i}.',
    ),
    ClassTensor(
        'bbox_head.cls_branches.{i}.bias',
        prior_bias,
        decoder='decoder.layers.{i}.',
    ),
)

_CONFIGS = ('h_detr/*_coco.py',)

AUTHORS = Layout(
    name='h_detr/authors',
    title="H-Deformable-DETR, the authors' repository",
    rules=(
        *torchvision_resnet('backbone.0.body.'),
        *microsoft_swin('backbone.0.body.'),
        *_AUTHORS_NECK,
        *_AUTHORS_TRANSFORMER,
        *_QUERIES,
        *_HEADS,
    ),
    aliases=(*_REGISTERED_TWICE, *_SHARED_HEADS),
    class_tensors=_CLASS_TENSORS,
    configs=_CONFIGS,
    max_per_img=100,
)

DETREX = Layout(
    name='h_detr/detrex',
    title='H-Deformable-DETR, detrex (trained there or converted)',
    rules=(
        *detectron2_resnet('backbone.'),
        *microsoft_swin('backbone.'),
        *_DETREX_NECK,
        *_DETREX_TRANSFORMER,
        *_QUERIES,
        *_HEADS,
    ),
    aliases=(*_REGISTERED_TWICE, *_SHARED_HEADS),
    class_tensors=_CLASS_TENSORS,
    configs=('h_detr/*-detrex.py', *_CONFIGS),
    max_per_img=300,
)
