"""Distinct queries selection against mmdet's own decoder of DDQ."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.models.layers.transformer import DDQTransformerDecoder
from torch import nn

from project.models.layers.transformer.ddq_decoder import (
    DDQDecoder,
    DistinctQueryGroups,
)
from project.models.layers.transformer.query_groups import QueryGroup

NUM_HEADS, NUM_DISTINCT = 2, 60
GROUPS = [
    QueryGroup('dn0', 4, sees=('matching',)),
    QueryGroup('matching', NUM_DISTINCT),
    QueryGroup('dense', 6),
]


def crowded_boxes(bs: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes of which many overlap, around a few places."""
    places = torch.rand(bs, 8, 4, generator=generator) * 0.5 + 0.25
    boxes = places.repeat(1, -(-70 // 8), 1)[:, :70]
    return boxes + torch.rand(bs, 70, 4, generator=generator) * 0.03


@pytest.mark.parametrize('first_is_best', [True, False])
def test_masks_are_those_of_mmdet(first_is_best: bool) -> None:
    """Two selections in a row; the first query is distinct or is not."""
    generator = torch.Generator().manual_seed(0)
    boxes = [crowded_boxes(2, generator) for _ in range(2)]
    heads = nn.ModuleList(nn.Linear(8, 3) for _ in range(2))
    queries = torch.randn(2, 2, 70, 8, generator=generator)
    if first_is_best:
        heads[0].weight.data.fill_(1.0)
        queries[0, :, 4] = 10
    else:  # the second one has the same box and a better score
        heads[0].weight.data.fill_(1.0)
        queries[0, :, 5] = 10
        boxes[0][:, 4] = boxes[0][:, 5]
    groups = DistinctQueryGroups(GROUPS)
    cache = dict(
        dis_query_info=[4, NUM_DISTINCT],
        cls_branches=heads,
        num_heads=NUM_HEADS,
        dqs_cfg=dict(type='nms', iou_threshold=0.8),
        distinct_query_mask=[],
    )
    theirs = SimpleNamespace(cache_dict=cache)
    ours = SimpleNamespace(iou_threshold=0.8)
    device = torch.device('cpu')
    mask = ~groups.attention_mask(device).repeat(2 * NUM_HEADS, 1, 1)
    current = groups
    for layer in range(2):
        mask = DDQTransformerDecoder.select_distinct_queries(
            theirs, boxes[layer], queries[layer], mask, layer
        )
        *unchanged, current = DDQDecoder.hand_over(
            ours,
            layer,
            queries[layer],
            None,
            boxes[layer],
            query_groups=current,
            cls_branches=heads,
        )
        assert unchanged[0].equal(queries[layer])
        assert unchanged[2].equal(boxes[layer])
        expected = ~mask[::NUM_HEADS, None]
        assert current.attention_mask(device).equal(expected)
        alive = torch.stack(
            [cache['distinct_query_mask'][layer][i * 2][0] for i in (0, 1)]
        )
        assert current.alive.equal(alive)
        assert not current.keep.all()
        if layer == 0:
            assert current.alive.all() == first_is_best
    assert groups.alive is None
