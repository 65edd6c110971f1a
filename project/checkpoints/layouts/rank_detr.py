# Copyright (c) mmdetr authors. All rights reserved.
"""Layout of Rank-DETR: the authors' repository, which is built on detrex."""

from dataclasses import replace

import torch

from project.checkpoints.architecture import Architecture
from project.checkpoints.layouts import h_detr
from project.checkpoints.layouts.rules import ClassTensor, Rule

_TABLE = 'rank_adaptive_classhead_emb.{i}.weight'
_RANK_LAYER = (
    'rank_aware_content_query.{i}.weight',
    'pre_racq_trans.{i}.{leaf}',
    'post_racq_trans.{i}.{leaf}',
)

# Which of the shipped configs build which architecture, the main one first.
_LAYER, _HEAD = 'query rank layer', 'rank-adaptive class head'
_BUILT_BY = {
    Architecture('r50', 1800, parts=(_LAYER, _HEAD)): (
        'r50_8xb2-12e',
        'r50_8xb2-36e',
        'r50_no-gcl_8xb2-12e',
        'r50_no-hmc_8xb2-12e',
        'r50_only-rch-qrl_8xb2-12e',
    ),
    Architecture('swin-t', 1800, parts=(_LAYER, _HEAD)): (
        'swin-t_8xb2-12e',
        'swin-t_8xb2-36e',
    ),
    Architecture('swin-l', 1800, parts=(_LAYER, _HEAD)): (
        'swin-l_8xb2-12e',
        'swin-l_8xb2-36e',
    ),
    Architecture('r50', 1800, parts=(_LAYER,)): (
        'r50_no-rch_8xb2-12e',
        'r50_only-qrl_8xb2-12e',
    ),
    Architecture('r50', 1800, parts=(_HEAD,)): (
        'r50_no-qrl_8xb2-12e',
        'r50_only-rch_8xb2-12e',
    ),
}

AUTHORS = replace(
    h_detr.DETREX,
    name='rank_detr/authors',
    title="Rank-DETR, the authors' repository",
    rules=(
        *h_detr.DETREX.rules,
        *(
            Rule(f'transformer.decoder.{name}', f'decoder.{name}')
            for name in _RANK_LAYER
        ),
        Rule(_TABLE, f'bbox_head.{_TABLE}'),
    ),
    class_tensors=(
        *h_detr.DETREX.class_tensors,
        ClassTensor(f'bbox_head.{_TABLE}', torch.zeros, axis=1),
    ),
    configs={
        f'rank_detr/rank-detr_{name}_coco.py': architecture
        for architecture, names in _BUILT_BY.items()
        for name in names
    },
)
