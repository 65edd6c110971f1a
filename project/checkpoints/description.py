# Copyright (c) mmdetr authors. All rights reserved.
"""Descriptions of detectors by the names and shapes of their weights."""

import re
from collections.abc import Mapping

from torch import Tensor

_RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): 'r50',
    (3, 4, 23, 3): 'r101',
}
_SWINS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): 'swin-t',
    (96, (2, 2, 18, 2)): 'swin-s',
    (192, (2, 2, 18, 2)): 'swin-l',
}
# Embeddings of the queries, of which a model has at most one.
_QUERY_TABLES = (
    'query_embedding.weight',
    'anchor_points.weight',
    'refpoint_embed.weight',
)
# Parts of single methods, by the prefix of their weights.
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


def describe(weights: Mapping[str, Tensor], shares_head: bool) -> str:
    """Describe a DETR in words.

    Args:
        weights (Mapping[str, Tensor]): By this project's names.
        shares_head (bool): Whether all decoder layers share one head, which
            cannot be seen from names and shapes.

    Returns:
        str: Such as ``r50, two stages, box refinement, feature levels: 4,
        rows of the query table: 1800``. A single missing tensor hardly
        changes it.
    """
    levels = weights.get('level_embed')
    rows = sum(len(weights[x]) for x in _QUERY_TABLES if x in weights)
    neck = [name for name in weights if re.match(r'neck\..*\.conv\.', name)]
    two_stage = _has(weights, ('memory_trans_', 'pos_trans_'))
    parts = [
        backbone_of(weights),
        'two stages' if two_stage else 'one stage',
        'shared heads' if shares_head else 'box refinement',
        # With a single level there is no level_embed.
        f'feature levels: {1 if levels is None else len(levels)}',
        f'rows of the query table: {rows}',
    ]
    if neck and not any(name.endswith('bias') for name in neck):
        parts.append('no biases in the neck')
    parts += [part for start, part in _PARTS.items() if _has(weights, start)]
    return ', '.join(parts)


def backbone_of(weights: Mapping[str, Tensor]) -> str:
    """Name the backbone by its depth and, for Swin, its width.

    Returns:
        str: As in the names of configs (``r50``, ``swin-t``), or in words.
    """
    resnet = _depths(weights, r'backbone\.layer(\d+)\.(\d+)\.')
    if resnet:
        return _RESNETS.get(resnet, f'a ResNet with blocks {resnet}')
    swin = _depths(weights, r'backbone\.stages\.(\d+)\.blocks\.(\d+)\.')
    if swin:
        width = _swin_width(weights)
        words = f'a Swin of width {width} with blocks {swin}'
        return _SWINS.get((width, swin), words)
    return 'an unknown backbone'


def _has(names: Mapping[str, Tensor], start: str | tuple[str, ...]) -> bool:
    """Whether any name begins so."""
    return any(name.startswith(start) for name in names)


def _depths(weights: Mapping[str, Tensor], block: str) -> tuple[int, ...]:
    """Count the blocks of each stage; ``block`` captures stage and block."""
    depths: dict[int, int] = {}
    for name in weights:
        if found := re.match(block, name):
            stage, index = map(int, found.groups())
            depths[stage] = max(depths.get(stage, 0), index + 1)
    return tuple(depths[stage] for stage in sorted(depths))


def _swin_width(weights: Mapping[str, Tensor]) -> int:
    """Channels of a Swin's first stage, from the first norm found there."""
    norm = re.compile(r'backbone\.stages\.0\.blocks\.\d+\.norm\d\.weight')
    found = next(filter(norm.fullmatch, weights), None)
    return 0 if found is None else len(weights[found])
