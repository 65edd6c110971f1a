# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS

from project.utils.errors import UserError

from ..layers.transformer.rank_decoder import RankDecoder
from .h_detr import HDETR, OneToMany


@MODELS.register_module()
class RankDETR(HDETR):
    """Rank-DETR: H-DETR with rank-aware queries.

    Source: `Rank-DETR for High Quality Object Detection
    <https://arxiv.org/abs/2310.08854>`_, section 3.2 (rank-oriented
    architecture). For the rank-oriented loss and matching cost of section 3.3
    see ``GIoUAwareFocalLoss`` of the head and ``late_match_costs`` of the
    assigner.

    Args:
        rank_adaptive_classhead (bool): Whether each rank has a learned bias
            on the class logits of every decoder layer. Defaults to True.
        query_rank_layer (bool): Whether a learned content of the rank is
            merged into the sorted queries between decoder layers. Defaults
            to True. If both are False, queries are not sorted.
        *args, **kwargs: As in :class:`HDETR`.

    Raises:
        UserError: If ``bbox_head`` does not support
            ``rank_adaptive_classhead``.
    """

    decoder_class = RankDecoder

    def __init__(
        self,
        *args: Any,
        num_queries: int,
        decoder: dict,
        bbox_head: dict,
        one2many: dict | None = None,
        rank_adaptive_classhead: bool = True,
        query_rank_layer: bool = True,
        **kwargs: Any,
    ) -> None:
        if rank_adaptive_classhead and bbox_head['type'] == 'HDETRHead':
            raise UserError(
                'RankDETR with rank_adaptive_classhead=True needs a head with '
                "biases of the ranks: bbox_head.type='RankDETRHead', not "
                "'HDETRHead'"
            )
        num_ranks = num_queries + OneToMany.read(one2many).num_queries
        decoder = {
            **decoder,
            'sort_queries': rank_adaptive_classhead or query_rank_layer,
            'num_ranks': num_ranks if query_rank_layer else 0,
        }
        bbox_head = {
            **bbox_head,
            'num_ranks': num_ranks if rank_adaptive_classhead else 0,
        }
        super().__init__(
            *args,
            num_queries=num_queries,
            decoder=decoder,
            bbox_head=bbox_head,
            one2many=one2many,
            **kwargs,
        )
