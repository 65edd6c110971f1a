# Copyright (c) mmdetr authors. All rights reserved.
"""Layouts of DETA and its baseline: the authors' repository and detrex.

The authors' code is based on Deformable DETR, like H-DETR's, and shares its
names. Assignment and NMS leave no trace in the weights: DETA and its baseline
have the same names and shapes.
"""

from dataclasses import replace

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

_CONFIGS = ('deta/*_5scale_8xb2-*_coco.py', 'deta/*_coco.py')

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
    configs=('deta/*-detrex.py', *_CONFIGS),
    max_per_img=100,
)
