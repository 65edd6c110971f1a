# Copyright (c) mmdetr authors. All rights reserved.
"""Layout of Anchor DETR: detrex's project, trained there or converted."""

from project.checkpoints.layouts import h_detr
from project.checkpoints.layouts.backbones import torchvision_resnet
from project.checkpoints.layouts.rules import Alias, Layout, Rule

_NECK = (
    Rule('input_proj.0.{leaf}', 'neck.convs.0.conv.{leaf}'),
    Rule('input_proj.1.{leaf}', 'neck.convs.0.gn.{leaf}'),
)

_QUERIES = (
    Rule('transformer.pattern.weight', 'patterns.weight'),
    Rule('transformer.position.weight', 'anchor_points.weight'),
    Rule('transformer.adapt_pos1d.{k}.{leaf}', 'axis_pos_mlp.{k}.{leaf}'),
    Rule('transformer.adapt_pos2d.{k}.{leaf}', 'point_pos_mlp.{k}.{leaf}'),
)

# The source numbers norms by age: in the decoder norm2 follows the
# self-attention, which runs first, and the last norm belongs to the FFN.
_NORMS = (
    ('encoder', 'norm1', 0),
    ('encoder', 'ffn.norm2', 1),
    ('decoder', 'norm2', 0),
    ('decoder', 'norm1', 1),
    ('decoder', 'ffn.norm2', 2),
)
_TRANSFORMER = (
    Rule(
        'transformer.encoder_layers.{i}.self_attn.{mha}',
        'encoder.layers.{i}.self_attn.{mha}',
    ),
    Rule(
        'transformer.decoder_layers.{i}.self_attn.{mha}',
        'decoder.layers.{i}.self_attn.attn.{mha}',
    ),
    Rule(
        'transformer.decoder_layers.{i}.cross_attn.{mha}',
        'decoder.layers.{i}.cross_attn.{mha}',
    ),
    *(
        Rule(
            f'transformer.{coder}_layers.{{i}}.{name}.{{leaf}}',
            f'{coder}.layers.{{i}}.norms.{k}.{{leaf}}',
        )
        for coder, name, k in _NORMS
    ),
    Rule(
        'transformer.{coder}_layers.{i}.ffn.linear1.{leaf}',
        '{coder}.layers.{i}.ffn.layers.0.0.{leaf}',
    ),
    Rule(
        'transformer.{coder}_layers.{i}.ffn.linear2.{leaf}',
        '{coder}.layers.{i}.ffn.layers.1.{leaf}',
    ),
)

_HEADS = (
    Rule(
        'transformer.class_embed.{i}.{leaf}',
        'bbox_head.cls_branches.{i}.{leaf}',
    ),
    # mmdet counts the ReLUs between the linear layers, the source does not.
    *(
        Rule(
            f'transformer.bbox_embed.{{i}}.layers.{k}.{{leaf}}',
            f'bbox_head.reg_branches.{{i}}.{2 * k}.{{leaf}}',
        )
        for k in range(3)
    ),
)
# One head under the names of all layers, here as well.
_SHARED_HEADS = (
    Alias(
        'transformer.class_embed.{i}.{leaf}',
        'transformer.class_embed.0.{leaf}',
        keep=True,
    ),
    Alias(
        'transformer.bbox_embed.{i}.layers.{k}.{leaf}',
        'transformer.bbox_embed.0.layers.{k}.{leaf}',
        keep=True,
    ),
)

DETREX = Layout(
    name='anchor_detr/detrex',
    title='Anchor DETR, detrex (trained there or converted)',
    rules=(
        *torchvision_resnet('backbone.body.'),
        *_NECK,
        *_QUERIES,
        *_TRANSFORMER,
        *_HEADS,
    ),
    aliases=_SHARED_HEADS,
    class_tensors=h_detr.DETREX.class_tensors,
    # detrex's recipe has two images a GPU. Dilation leaves no trace.
    configs=('anchor_detr/*_8xb2-*_coco.py', 'anchor_detr/*_coco.py'),
    max_per_img=100,
)
