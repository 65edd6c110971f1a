# Copyright (c) mmdetr authors. All rights reserved.
"""Layouts of DETA and its baseline: the authors' repository and detrex.

The authors' code grew out of Deformable DETR, as H-DETR's did, and shares
its names. How a model was trained and whether it suppresses overlapping
boxes leaves no trace in the weights: DETA and its baseline look the same.
"""

from dataclasses import replace

from project.checkpoints.architecture import Architecture
from project.checkpoints.layouts import h_detr
from project.checkpoints.layouts.rules import Rule

_MEMORY = (
    Rule('transformer.pix_trans.{leaf}', 'pix_trans_fc.{leaf}'),
    Rule('transformer.pix_trans_norm.{leaf}', 'pix_trans_norm.{leaf}'),
)
_FIFTH_LEVEL = (
    Rule('input_proj.4.0.{leaf}', 'neck.extra_convs.1.conv.{leaf}'),
    Rule('input_proj.4.1.{leaf}', 'neck.extra_convs.1.gn.{leaf}'),
)

# Which of the shipped configs build which architecture, the main one first.
_PARTS = ('memory in the queries',)
_BUILT_BY = {
    Architecture('r50', num_levels=5, parts=_PARTS): (
        'r50_5scale_8xb2-12e_coco',
        'r50_5scale_8xb2-24e_coco',
        'r50_improved-baseline_8xb2-50e_coco',
    ),
    Architecture('swin-l', num_levels=5, parts=_PARTS): (
        'swin-l_5scale_16xb1-24e_coco',
    ),
}
_CONFIGS = {
    f'deta/deta_{name}.py': architecture
    for architecture, names in _BUILT_BY.items()
    for name in names
}
_DETREX_CONFIGS = {
    f'deta/deta_r50_5scale_{name}.py': next(iter(_BUILT_BY))
    for name in (
        '8xb2-12e_coco-detrex',
        'no-frozen-backbone_8xb2-12e_coco',
        '8xb1-12e_coco',
    )
}

AUTHORS = replace(
    h_detr.AUTHORS,
    name='deta/authors',
    title="DETA, the authors' repository",
    rules=(*h_detr.AUTHORS.rules, *_MEMORY, *_FIFTH_LEVEL),
    configs=_CONFIGS,
)

DETREX = replace(
    h_detr.DETREX,
    name='deta/detrex',
    title='DETA, detrex (trained there or converted)',
    rules=(*h_detr.DETREX.rules, *_MEMORY),
    configs={**_DETREX_CONFIGS, **_CONFIGS},
    max_per_img=100,
)
