# Copyright (c) mmdetr authors. All rights reserved.
"""What the names and shapes of a detector's weights tell about it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import Tensor

_RESNETS = {(3, 4, 6, 3): 'r50', (3, 4, 23, 3): 'r101'}
_SWINS = {
    (96, (2, 2, 6, 2)): 'swin-t',
    (96, (2, 2, 18, 2)): 'swin-s',
    (192, (2, 2, 18, 2)): 'swin-l',
}
# Learned tables that queries come from; a model has one of them at most.
_QUERY_TABLES = (
    'query_embedding.weight',
    'anchor_points.weight',
    'refpoint_embed.weight',
)
# Parts of single methods, by how the names of their weights begin.
_PARTS = {
    'decoder.rank_aware_content_query.': 'query rank layer',
    'bbox_head.rank_adaptive_classhead_emb.': 'rank-adaptive class head',
    'dn_query_generator.': 'denoising queries',
    'encoder.query_scale.': 'dense encoder',
    'decoder.ref_anchor_head.': 'dense decoder',
    'patterns.': 'patterns',
    'anchor_points.': 'anchor points',
    'pix_trans_': 'memory in the queries',
    'bbox_head_aux.': 'proposal refiners',
    'query_map.': 'distinct queries',
}


@dataclass(frozen=True)
class Architecture:
    """The settings that decide the names and shapes of the weights.

    Args:
        backbone (str): ``r50``, ``r101``, ``swin-t``, ``swin-s``,
            ``swin-l``, or another backbone in words.
        num_query_rows (int): Rows of the learned query table (one-to-one and
            one-to-many queries together) or of learned anchors; 0 if there
            is no such table.
        num_levels (int): Feature levels.
        as_two_stage (bool): Whether the encoder proposes the boxes.
        with_box_refine (bool): Whether each decoder layer has its own heads.
        with_neck_bias (bool): Whether the neck's convolutions have biases.
        parts (tuple[str]): Parts that not every method has, in words.
    """

    backbone: str
    num_query_rows: int = 0
    num_levels: int = 4
    as_two_stage: bool = True
    with_box_refine: bool = True
    with_neck_bias: bool = True
    parts: tuple[str, ...] = ()

    def distance(self, other: 'Architecture') -> tuple[bool, int]:
        """Tell how far apart two architectures are, for sorting.

        Returns:
            tuple[bool, int]: Whether the backbones differ (which outweighs
            all the rest), and the number of settings that differ.
        """
        differing = sum(
            getattr(self, field.name) != getattr(other, field.name)
            for field in fields(self)
        )
        return self.backbone != other.backbone, differing

    def __str__(self) -> str:
        return ', '.join(
            [
                self.backbone,
                'two stages' if self.as_two_stage else 'one stage',
                'box refinement' if self.with_box_refine else 'shared heads',
                f'feature levels: {self.num_levels}',
                f'rows of the query table: {self.num_query_rows}',
                *([] if self.with_neck_bias else ['no biases in the neck']),
                *self.parts,
            ]
        )


def describe(
    state_dict: Mapping[str, Tensor], with_box_refine: bool
) -> Architecture:
    """Read the architecture of a Deformable-DETR-like detector.

    Args:
        state_dict (Mapping[str, Tensor]): Weights under this project's names.
        with_box_refine (bool): False if all decoder layers share one head,
            which names and shapes do not show.

    Returns:
        Architecture: A guess that a single missing tensor hardly changes.
    """
    rows = [
        len(state_dict[name]) for name in _QUERY_TABLES if name in state_dict
    ]
    levels = state_dict.get('level_embed')
    two_stage = any(
        name.startswith(('memory_trans_', 'pos_trans_')) for name in state_dict
    )
    neck = [n for n in state_dict if re.match(r'neck\..*\.conv\.', n)]
    return Architecture(
        backbone=_backbone(state_dict),
        num_query_rows=sum(rows),
        # A single level is not told from others.
        num_levels=1 if levels is None else len(levels),
        as_two_stage=two_stage,
        with_box_refine=with_box_refine,
        with_neck_bias=not neck or any(n.endswith('bias') for n in neck),
        parts=tuple(
            part
            for start, part in _PARTS.items()
            if any(name.startswith(start) for name in state_dict)
        ),
    )


def _backbone(state_dict: Mapping[str, Tensor]) -> str:
    """Name the backbone by its depth and, for Swin, its width."""
    resnet = _depths(state_dict, r'backbone\.layer(\d+)\.(\d+)\.')
    if resnet:
        return _RESNETS.get(resnet, f'a ResNet with blocks {resnet}')
    swin = _depths(state_dict, r'backbone\.stages\.(\d+)\.blocks\.(\d+)\.')
    if swin:
        width = _swin_width(state_dict)
        words = f'a Swin of width {width} with blocks {swin}'
        return _SWINS.get((width, swin), words)
    return 'an unknown backbone'


def _depths(state_dict: Mapping[str, Tensor], block: str) -> tuple[int, ...]:
    """Count the blocks of each stage; ``block`` captures stage and block."""
    depths: dict[int, int] = {}
    for name in state_dict:
        if found := re.match(block, name):
            stage, index = map(int, found.groups())
            depths[stage] = max(depths.get(stage, 0), index + 1)
    return tuple(depths[stage] for stage in sorted(depths))


def _swin_width(state_dict: Mapping[str, Tensor]) -> int:
    """Channels of a Swin's first stage, from the first norm found there."""
    norm = re.compile(r'backbone\.stages\.0\.blocks\.\d+\.norm\d\.weight')
    found = filter(norm.fullmatch, state_dict)
    return len(state_dict[next(found)]) if found else 0
