# Copyright (c) mmdetr authors. All rights reserved.
"""Every method of this package at one small size, from its own config.

Network sizes, data and schedule become the same for all; everything else, such
as matching, losses, denoising and numbers of queries, stays the method's.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from project.preflight.config_files import read_config_file

ROOT = Path(__file__).resolve().parents[2]
COMMON = ROOT / 'configs/_base_/side_by_side.py'

_SIZES: dict[str, dict] = {
    'embed_dims': {256: 64},
    'in_channels': {256: 64},
    'out_channels': {256: 64},
    'feat_channels': {64: 16},
    'num_feats': {128: 32},
    'feedforward_channels': {1024: 128, 2048: 128},
    'num_levels': {4: 3, 5: 3},
    'num_outs': {4: 3, 5: 3},
    'featmap_strides': {(8, 16, 32, 64): [8, 16, 32]},
    'num_queries': {300: 20, 900: 60, 1500: 100},
    'num_dn_queries': {100: 10},
    'max_per_img': {300: 100},  # what COCO's AP looks at
    # Of the six decoder layers and the encoder: the last two stay.
    'all_layers_num_gt_repeat': {(2, 2, 2, 2, 2, 1, 2): [2, 1, 2]},
}
"""What becomes of the sizes of a published model, by key."""

_LAYERS = dict(encoder=1, decoder=2)  # of 6


@dataclass(frozen=True)
class Method:
    """A method, and where its settings come from.

    Attributes:
        config: Its published config, relative to the repository.
        changes: Settings of the small ``model`` that are put over it.
    """

    config: str
    changes: Mapping[str, Any] = field(default_factory=dict)


METHODS: dict[str, Method] = {
    'Deformable DETR': Method(
        'configs/h_detr/h-detr_r50_baseline-tricks_8xb2-12e_coco.py'
    ),
    'H-DETR': Method('configs/h_detr/h-detr_r50_8xb2-12e_coco.py'),
    'Rank-DETR': Method('configs/rank_detr/rank-detr_r50_8xb2-12e_coco.py'),
    'Improved Deformable DETR': Method(
        'configs/deta/deta_r50_improved-baseline_8xb2-50e_coco.py'
    ),
    'DETA': Method('configs/deta/deta_r50_5scale_8xb2-12e_coco.py'),
    # The detector of Align-DETR with DINO's head: mmdet's DINO is tied to 256
    # channels.
    'DINO': Method(
        'configs/_base_/models/dino_r50.py',
        {'type': 'AlignDETR', 'bbox_head.type': 'HPRDETRHead'},
    ),
    'Align-DETR': Method('configs/align_detr/align-detr_r50_8xb2-12e_coco.py'),
    'Align-DETR, level NMS': Method(
        'configs/align_detr/align-detr_r50_level-nms_8xb2-12e_coco.py'
    ),
    'DN-Deformable-DETR': Method(
        'configs/dn_detr/dn-deformable-detr_r50_8xb2-50e_coco.py'
    ),
    'HPR-Deformable DETR': Method(
        'configs/hpr/hpr-deformable-detr_r50_8xb2-12e_coco.py'
    ),
    'HPR-DINO': Method('configs/hpr/hpr-dino_r50_8xb2-12e_coco.py'),
    'HPR-DINO, rank loss': Method(
        'configs/hpr/hpr-dino_r50_rank-loss_8xb2-12e_coco.py'
    ),
    'HPR-Align-DETR': Method(
        'configs/hpr/hpr-align-detr_r50_8xb2-12e_coco.py'
    ),
    'HPR-DDQ': Method('configs/hpr/hpr-ddq_r50_8xb2-88k_coco.py'),
    'DN-DETR': Method('configs/dn_detr/dn-detr_r50-dc5_16xb1-50e_coco.py'),
    'Anchor DETR': Method(
        'configs/anchor_detr/anchor-detr_r50-dc5_8xb1-50e_coco.py'
    ),
}


def small_config(method: Method) -> Config:
    """Give a method the size, the data and the schedule of all.

    Args:
        method: Where its settings come from.

    Returns:
        A complete config.
    """
    published = read_config_file(ROOT / method.config)
    small = read_config_file(COMMON)
    model = copy.deepcopy(published.model)
    _shrink(model)
    for coder, num_layers in _LAYERS.items():
        model[coder].num_layers = num_layers
        model[coder].pop('num_cp', None)
    model.data_preprocessor = small.pop('preprocessor')
    used = {key: model.backbone[key] for key in ('type', 'out_indices')}
    model.backbone = ConfigDict(**small.pop('backbone'), **used)
    width = model.backbone.base_channels
    model.neck.in_channels = [width * 2**i for i in used['out_indices']]
    if model.neck.num_outs > 1:
        model.num_feature_levels = model.neck.num_outs
    model.bbox_head.embed_dims = _SIZES['embed_dims'][256]
    model.bbox_head.num_classes = len(small.classes)
    small.model = model
    small.merge_from_dict({f'model.{k}': v for k, v in method.changes.items()})
    return small


def _shrink(node: Any) -> None:
    """Replace sizes wherever they stand in a part of a config."""
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in _SIZES:
            known = tuple(value) if isinstance(value, list) else value
            node[key] = _SIZES[key].get(known, value)
        else:
            _shrink(value)
