# Copyright (c) mmdetr authors. All rights reserved.
"""Layouts of DN-DETR and its deformable forms: the authors and detrex."""

from dataclasses import replace

from project.checkpoints.class_tensors import (
    linear_weight,
    normal_rows,
    prior_bias,
)
from project.checkpoints.layouts import h_detr
from project.checkpoints.layouts.backbones import (
    detectron2_resnet,
    torchvision_resnet,
)
from project.checkpoints.layouts.rules import Alias, ClassTensor, Layout, Rule

_LABELS = 'dn_query_generator.label_embedding.weight'
_AUTHORS_LABELS = Rule('label_enc.weight', _LABELS)
_DETREX_LABELS = (
    Rule('denoising_generator.label_encoder.weight', _LABELS),
    # detrex's converter leaves the prefix out.
    Rule('label_encoder.weight', _LABELS),
)
_LABEL_CLASSES = ClassTensor(_LABELS, normal_rows, num_extra=1)

# One head for all layers.
_HEAD = (
    Rule('class_embed.{leaf}', 'bbox_head.fc_cls.{leaf}'),
    Rule('bbox_embed.layers.{k}.{leaf}', 'bbox_head.fc_reg.layers.{k}.{leaf}'),
)
_HEAD_TWICE = Alias(
    'transformer.decoder.bbox_embed.layers.{k}.{leaf}',
    'bbox_embed.layers.{k}.{leaf}',
)
_HEAD_CLASSES = (
    ClassTensor('bbox_head.fc_cls.weight', linear_weight),
    ClassTensor('bbox_head.fc_cls.bias', prior_bias),
    _LABEL_CLASSES,
)

# Names that both sources give.
_INPUT = Rule('input_proj.{leaf}', 'neck.convs.0.conv.{leaf}')
_ENCODER_SCALE = Rule(
    'transformer.encoder.query_scale.layers.{k}.{leaf}',
    'encoder.query_scale.layers.{k}.{leaf}',
)
_DECODER_MLPS = tuple(
    Rule(
        f'transformer.decoder.{name}.layers.{{k}}.{{leaf}}',
        f'decoder.{name}.layers.{{k}}.{{leaf}}',
    )
    for name in ('query_scale', 'ref_point_head', 'ref_anchor_head')
)


def _layer_rules(coder: str, pairs: dict[str, str]) -> tuple[Rule, ...]:
    """Rules for the layers of an encoder or decoder."""
    return tuple(
        Rule(
            f'transformer.{coder}.layers.{{i}}.{source}',
            f'{coder}.layers.{{i}}.{target}',
        )
        for source, target in pairs.items()
    )


_AUTHORS_FFN = {
    'linear1.{leaf}': 'ffn.layers.0.0.{leaf}',
    'activation.weight': 'ffn.layers.0.1.weight',
    'linear2.{leaf}': 'ffn.layers.1.{leaf}',
    'norm1.{leaf}': 'norms.0.{leaf}',
    'norm2.{leaf}': 'norms.1.{leaf}',
}
_AUTHORS_DECODER = (
    *_layer_rules(
        'decoder',
        {
            **{
                f'{ours[0]}a_{part}_proj.{{leaf}}': (
                    f'{ours}_attn.{part}_proj.{{leaf}}'
                )
                for ours in ('self', 'cross')
                for part in (
                    'qcontent',
                    'qpos',
                    'kcontent',
                    'kpos',
                    'v',
                    'qpos_sine',
                )
            },
            'self_attn.out_proj.{leaf}': 'self_attn.out_proj.{leaf}',
            **_AUTHORS_FFN,
            'norm3.{leaf}': 'norms.2.{leaf}',
        },
    ),
    *_DECODER_MLPS,
    Rule('transformer.decoder.norm.{leaf}', 'decoder.post_norm.{leaf}'),
    Rule('transformer.patterns.weight', 'patterns.weight'),
    Rule('refpoint_embed.weight', 'query_embedding.weight'),
)

_DETREX_FFN = {
    'ffns.0.layers.0.0.{leaf}': 'ffn.layers.0.0.{leaf}',
    'ffns.0.activation.weight': 'ffn.layers.0.1.weight',
    'ffns.0.layers.1.{leaf}': 'ffn.layers.1.{leaf}',
    'norms.{k}.{leaf}': 'norms.{k}.{leaf}',
}
_DETREX_PROJECTIONS = {
    'query_content_proj': 'qcontent_proj',
    'query_pos_proj': 'qpos_proj',
    'query_pos_sine_proj': 'qpos_sine_proj',
    'key_content_proj': 'kcontent_proj',
    'key_pos_proj': 'kpos_proj',
    'value_proj': 'v_proj',
    'out_proj': 'out_proj',
}
_DETREX_RULES = (
    _INPUT,
    _ENCODER_SCALE,
    *_layer_rules(
        'encoder',
        {'attentions.0.attn.{mha}': 'self_attn.attn.{mha}', **_DETREX_FFN},
    ),
    *_layer_rules(
        'decoder',
        {
            **{
                f'attentions.{index}.{theirs}.{{leaf}}': (
                    f'{attention}.{ours}.{{leaf}}'
                )
                for index, attention in enumerate(('self_attn', 'cross_attn'))
                for theirs, ours in _DETREX_PROJECTIONS.items()
            },
            **_DETREX_FFN,
        },
    ),
    *_DECODER_MLPS,
    Rule(
        'transformer.decoder.post_norm_layer.{leaf}',
        'decoder.post_norm.{leaf}',
    ),
    Rule('anchor_box_embed.weight', 'query_embedding.weight'),
    *_HEAD,
    *_DETREX_LABELS,
)


AUTHORS = Layout(
    name='dn_detr/authors',
    title="DN-DETR, the authors' repository",
    rules=(
        *torchvision_resnet('backbone.0.body.'),
        _INPUT,
        _ENCODER_SCALE,
        *_layer_rules(
            'encoder',
            {'self_attn.{mha}': 'self_attn.attn.{mha}', **_AUTHORS_FFN},
        ),
        *_AUTHORS_DECODER,
        *_layer_rules(
            'decoder',
            {'cross_attn.out_proj.{leaf}': 'cross_attn.out_proj.{leaf}'},
        ),
        *_HEAD,
        _AUTHORS_LABELS,
    ),
    aliases=(_HEAD_TWICE,),
    class_tensors=_HEAD_CLASSES,
    configs=('dn_detr/dn-detr_*_coco.py',),
    max_per_img=300,
)

DETREX = Layout(
    name='dn_detr/detrex',
    title='DN-DETR, detrex',
    rules=(*detectron2_resnet('backbone.'), *_DETREX_RULES),
    aliases=(
        _HEAD_TWICE,
        Alias(
            'transformer.{coder}.layers.{i}.ffns.0.layers.0.1.weight',
            'transformer.{coder}.layers.{i}.ffns.0.activation.weight',
        ),
    ),
    class_tensors=_HEAD_CLASSES,
    configs=(
        'dn_detr/dn-detr_*_8xb2-*-detrex.py',
        'dn_detr/dn-detr_*_coco.py',
    ),
    max_per_img=300,
)

# With DC5 detrex takes the backbone, and its names, from torchvision.
DETREX_DC5 = replace(
    DETREX,
    name='dn_detr/detrex_dc5',
    title='DN-DETR, detrex with DC5',
    rules=(*torchvision_resnet('backbone.body.'), *_DETREX_RULES),
    configs=(
        'dn_detr/dn-detr_*-dc5_*-detrex.py',
        'dn_detr/dn-detr_*-dc5_*_coco.py',
    ),
)

_DEFORMABLE_CONFIGS = (
    'dn_detr/dn-deformable-detr_*-50e_coco.py',
    'dn_detr/dn-deformable-detr_*_coco.py',
)
_DEFORMABLE_RULES = (
    *(
        Rule(
            f'transformer.decoder.{name}.layers.{{k}}.{{leaf}}',
            f'decoder.{name}.layers.{{k}}.{{leaf}}',
        )
        for name in ('query_scale', 'ref_point_head')
    ),
    Rule('tgt_embed.weight', 'tgt_embed.weight'),
    Rule('refpoint_embed.weight', 'refpoint_embed.weight'),
)

DEFORMABLE_AUTHORS = replace(
    h_detr.AUTHORS,
    name='dn_detr/authors_deformable',
    title="DN-DAB-Deformable-DETR v2, the authors' repository",
    rules=(*h_detr.AUTHORS.rules, *_DEFORMABLE_RULES, _AUTHORS_LABELS),
    class_tensors=(*h_detr.AUTHORS.class_tensors, _LABEL_CLASSES),
    configs=_DEFORMABLE_CONFIGS,
    max_per_img=100,
)

DEFORMABLE_DETREX = replace(
    h_detr.DETREX,
    name='dn_detr/detrex_deformable',
    title='DN-Deformable-DETR, detrex (trained there or converted)',
    rules=(*h_detr.DETREX.rules, *_DEFORMABLE_RULES, *_DETREX_LABELS),
    class_tensors=(*h_detr.DETREX.class_tensors, _LABEL_CLASSES),
    configs=(
        'dn_detr/dn-deformable-detr_*-50e_coco-detrex.py',
        'dn_detr/dn-deformable-detr_*-detrex.py',
        *_DEFORMABLE_CONFIGS,
    ),
    max_per_img=300,
)

# H-DETR's encoder and DN-DETR's decoder.
_ENCODER_NAMES = ('backbone.', 'neck.', 'level_embed', 'encoder.', '{coder}.')
ENCODER_ONLY = Layout(
    name='dn_detr/authors_deformable_encoder',
    title='DN-DAB-Deformable-DETR with a deformable encoder only, the '
    "authors' repository",
    rules=(
        *(
            rule
            for rule in h_detr.AUTHORS.rules
            if rule.target.startswith(_ENCODER_NAMES)
        ),
        *_AUTHORS_DECODER,
        *_layer_rules(
            'decoder',
            {
                'ca_out_v_proj.{leaf}': 'cross_attn.out_proj.{leaf}',
                'lvl_attn.{leaf}': 'cross_attn.level_weights.{leaf}',
            },
        ),
        *_HEAD,
        _AUTHORS_LABELS,
    ),
    aliases=(_HEAD_TWICE,),
    class_tensors=_HEAD_CLASSES,
    configs=(
        'dn_detr/dn-deformable-encoder-detr_*-50e_coco.py',
        'dn_detr/dn-deformable-encoder-detr_*_coco.py',
    ),
    max_per_img=300,
)

LAYOUTS = (
    AUTHORS,
    DETREX,
    DETREX_DC5,
    DEFORMABLE_AUTHORS,
    DEFORMABLE_DETREX,
    ENCODER_ONLY,
)
