# Copyright (c) mmdetr authors. All rights reserved.
"""Layout of Rank-DETR: the authors' repository, which is built on detrex."""

from dataclasses import replace

import torch

from project.checkpoints.layouts import h_detr
from project.checkpoints.layouts.rules import ClassTensor, Rule

_TABLE = 'rank_adaptive_classhead_emb.{i}.weight'
_RANK_LAYER = (
    'rank_aware_content_query.{i}.weight',
    'pre_racq_trans.{i}.{leaf}',
    'post_racq_trans.{i}.{leaf}',
)

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
    configs=('rank_detr/*_coco.py',),
)
