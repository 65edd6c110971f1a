# Copyright (c) mmdetr authors. All rights reserved.
"""Layouts of checkpoints that have this project's names already.

They were trained here, published by HPR's authors or converted before.
Nothing is renamed, so that a layout tells no names, only which tensors count
classes: for fine-tuning on others, they are treated as those of the official
files. Whether the names are right a model tells.
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
# Of the head, by layer: one module if there is no box refinement.
_BRANCHES = ('cls_branches.{i}.{leaf}', 'reg_branches.{i}.{k}.{leaf}')
_FIRST_STAGE = 'memory_trans_fc.'
# Makes positions of references, as DINO's decoder does and that of anchors.
_REFERENCES = 'decoder.ref_point_head.'

# DINO's first stage tells classes, as the decoder's layers do, and its table
# of labels has no row for "no object".
_DINO_CLASSES = (
    *(
        ClassTensor(f'{head}{branches}.{{i}}.{leaf}', fresh)
        for head in (_HEAD, _AUXILIARY_HEAD)
        for branches in ('cls_branches', 'aux_cls_branches')
        for leaf, fresh in (('weight', linear_weight), ('bias', prior_bias))
    ),
    ClassTensor('dn_query_generator.label_embedding.weight', normal_rows),
)
# The training of mmdet's DDQ hangs branches of the head onto the decoder.
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
    """Describe what these layouts become when they are converted.

    Args:
        layouts (Iterable[Layout]): Layouts of other repositories. What they
            say of one name is the same.

    Returns:
        Layout: Their tensors that count classes, those of auxiliary heads of
        the same kind besides, and their configs.
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
    """Whether weights have the names of this project, which are mmdet's.

    Args:
        names (Iterable[str]): All names of a checkpoint.

    Returns:
        bool: Whether any belongs to the head.
    """
    return any(name.startswith(_HEAD) for name in names)


def is_dino(names: Iterable[str]) -> bool:
    """Whether weights under this project's names are of DINO's kind.

    Args:
        names (Iterable[str]): All names of a checkpoint.

    Returns:
        bool: Whether a first stage gives boxes alone, from which the decoder
        makes positions. Others make them in the first stage, or have none.
    """
    names = tuple(names)
    return all(
        any(name.startswith(start) for name in names)
        for start in (_FIRST_STAGE, _REFERENCES)
    )


def shared_branches(weights: Mapping[str, Tensor]) -> frozenset[str]:
    """Find the branches that all decoder layers share.

    One module under the names of all layers leaves no other trace than that
    all tensors are equal. With a first stage there are none.

    Args:
        weights (Mapping[str, Tensor]): Weights under this project's names.

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
