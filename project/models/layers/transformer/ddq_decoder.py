# Copyright (c) mmdetr authors. All rights reserved.
"""DDQ's decoder, with distinct queries selection in each layer."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from ...utils.distinct_boxes import distinct_boxes
from ...utils.precision import apply_in_full_precision
from .dino_decoder import DINODecoder
from .query_groups import QueryGroup, QueryGroups


class DistinctQueryGroups(QueryGroups):
    """Query groups of which ``'matching'`` is kept distinct.

    Source: `DDQ <https://arxiv.org/abs/2303.12776>`_, distinct queries
    selection, masked as in mmdet's ``DDQTransformerDecoder``: two matching
    queries attend to each other if at least one of them is distinct. After
    each layer the distinct ones are selected among those alive. If the first
    query, the most confident of the first stage, is distinct, all are alive:
    mmdet reads the alive ones from its row of the mask.

    Args:
        groups (list[QueryGroup]): In the order of the queries.
        keep (Tensor, optional): True for distinct matching queries, has
            shape (bs, num_matching). By default all are, as before the first
            layer.
        first (DistinctQueryGroups, optional): The groups before the first
            layer, whose mask is shared. Defaults to these groups.
    """

    def __init__(
        self,
        groups: Sequence[QueryGroup],
        keep: Tensor | None = None,
        first: 'DistinctQueryGroups | None' = None,
    ) -> None:
        super().__init__(groups)
        self.keep = keep
        self.first = first or self

    @property
    def is_masked(self) -> bool:
        """bool: Whether attention needs the mask."""
        return self.keep is not None

    @property
    def alive(self) -> Tensor | None:
        """Tensor: Candidates of the selection, (bs, num_matching)."""
        if self.keep is None:
            return None
        return self.keep | self.keep[:, :1]

    def followed_by(self, keep: Tensor) -> 'DistinctQueryGroups':
        """Groups of the next layer.

        Args:
            keep (Tensor): True for distinct matching queries, has shape
                (bs, num_matching).
        """
        return DistinctQueryGroups(self.groups, keep, self.first)

    def attention_mask(self, device: torch.device) -> Tensor:
        """Attention mask, which is cached.

        Args:
            device (torch.device): Device of the mask.

        Returns:
            Tensor: True where a query (row) attends to a key (column), has
            shape (bs, 1, num_queries, num_queries); without the first two
            axes while all are distinct.
        """
        if self.keep is None or self._mask is not None:
            return super().attention_mask(device)
        mask = self.first.attention_mask(device)
        mask = mask.repeat(self.keep.shape[0], 1, 1, 1)
        place = self['matching']
        mask[:, 0, place, place] = self.keep[:, :, None] | self.keep[:, None]
        self._mask = mask
        return mask


class DDQDecoder(DINODecoder):
    """DINO's decoder with distinct queries selection between layers.

    Args:
        *args: As in :class:`DINODecoder`.
        iou_threshold (float): IoU above which two boxes are not distinct.
            Set by the detector. Defaults to 0.8.
        **kwargs: As in :class:`DINODecoder`.
    """

    def __init__(
        self, *args: Any, iou_threshold: float = 0.8, **kwargs: Any
    ) -> None:
        self.iou_threshold = iou_threshold
        super().__init__(*args, **kwargs)

    def hand_over(  # type: ignore[override]  # its detector gives them all
        self,
        layer_id: int,
        query: Tensor,
        query_pos: Tensor,
        reference: Tensor,
        *,
        query_groups: DistinctQueryGroups,
        cls_branches: nn.ModuleList,
    ) -> tuple[Tensor, Tensor, Tensor, DistinctQueryGroups]:
        """Select the distinct ones among the matching queries.

        Arguments and results are those of :class:`BoxRefinementDecoder`.
        """
        place = query_groups['matching']
        with torch.no_grad():
            logits = apply_in_full_precision(
                cls_branches[layer_id], query[:, place]
            )
            keep = distinct_boxes(
                bbox_cxcywh_to_xyxy(reference[:, place]),
                logits.sigmoid().amax(-1),
                self.iou_threshold,
                query_groups.alive,
            )
        groups = query_groups.followed_by(keep)
        return query, query_pos, reference, groups
