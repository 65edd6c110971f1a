# Copyright (c) mmdetr authors. All rights reserved.
"""Layouts of checkpoints that have this project's names already.

They were trained here, published by HPR's authors or converted before. A
layout has no rules for names, only the tensors that depend on the number of
classes, for fine-tuning. Names are checked against a model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from project.checkpoints.class_tensors import (
    linear_weight,
    normal_rows,
    prior_bias,
)
from project.checkpoints.layouts.rules import Alias, ClassTensor, Layout, match

_HEAD, _AUXILIARY_HEAD = 'bbox_head.', 'bbox_head_aux.{head}.'
# Branches by layer; all are one module without box refinement.
_BRANCHES = ('cls_branches.{i}.{leaf}', 'reg_branches.{i}.{k}.{leaf}')
_FIRST_STAGE = 'memory_trans_fc.'
# Embeds references, in DINO's decoder and in that of anchors.
_REFERENCES = 'decoder.ref_point_head.'

# DINO's first stage predicts classes, and its label embedding has no row for
# "no object".
_DINO_CLASSES = (
    *(
        ClassTensor(f'{head}{branches}.{{i}}.{leaf}', fresh)
        for head in (_HEAD, _AUXILIARY_HEAD)
        for branches in ('cls_branches', 'aux_cls_branches')
        for leaf, fresh in (('weight', linear_weight), ('bias', prior_bias))
    ),
    ClassTensor('dn_query_generator.label_embedding.weight', normal_rows),
)
# In training, mmdet's DDQ also registers branches of the head in the decoder.
_DDQ_SECOND_NAMES = Alias(
    'decoder.aux_reg_branches.{i}.{k}.{leaf}',
    'bbox_head.aux_reg_branches.{i}.{k}.{leaf}',
)

DINO = Layout(
    name='mmdetr/dino',
    title="this project's names, DINO and what builds on it",
    rules=(),
    aliases=(_DDQ_SECOND_NAMES,),
    class_tensors=_DINO_CLASSES,
    configs=(
        'align_detr/*_coco.py',
        'hpr/hpr-d*_coco.py',
        'hpr/hpr-align-*_coco.py',
    ),
)


def as_converted(layouts: Iterable[Layout]) -> Layout:
    """Layout of checkpoints that were converted from these layouts.

    Args:
        layouts (Iterable[Layout]): Layouts of other repositories.

    Returns:
        Layout: With their class-dependent tensors, also in auxiliary heads,
        and their configs.
    """
    layouts = tuple(layouts)
    tensors = dict.fromkeys(t for x in layouts for t in x.class_tensors)
    auxiliary = (
        replace(tensor, target=_AUXILIARY_HEAD + rest)
        for tensor in tensors
        if (rest := tensor.target.removeprefix(_HEAD)) != tensor.target
    )
    return Layout(
        name='mmdetr/detr',
        title="this project's names, DETR or Deformable DETR and what builds "
        'on it',
        rules=(),
        aliases=(),
        class_tensors=(*tensors, *auxiliary),
        configs=(
            *dict.fromkeys(pattern for x in layouts for pattern in x.configs),
            'hpr/hpr-h-*_coco.py',
            'hpr/hpr-rank-*_coco.py',
        ),
    )


def has_our_names(names: Iterable[str]) -> bool:
    """Whether weights have the names of this project, which are mmdet's."""
    return any(name.startswith(_HEAD) for name in names)


def is_dino(names: Iterable[str]) -> bool:
    """Whether weights under this project's names are of DINO's kind.

    Only these have both a first stage and a decoder that embeds references.
    """
    names = tuple(names)
    return all(
        any(name.startswith(start) for name in names)
        for start in (_FIRST_STAGE, _REFERENCES)
    )


def shared_branches(weights: Mapping[str, Tensor]) -> frozenset[str]:
    """Find the branches that all decoder layers share.

    A shared module can only be recognised by equal tensors. With a first
    stage there is none.

    Returns:
        frozenset[str]: Their names; empty if each layer has its own.
    """
    if any(name.startswith(_FIRST_STAGE) for name in weights):
        return frozenset()
    first_of = {
        name: (_HEAD + template).format(**{**fields, 'i': 0})
        for name in weights
        for template in _BRANCHES
        if (fields := match(_HEAD + template, name))
    }
    is_one = len(first_of) > len(set(first_of.values())) and all(
        first in weights and torch.equal(weights[name], weights[first])
        for name, first in first_of.items()
    )
    return frozenset(first_of) if is_one else frozenset()
