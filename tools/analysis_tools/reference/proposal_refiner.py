# Copyright (c) mmdetr authors. All rights reserved.
"""HPR's decoder layer as its text says, tensor by tensor.

The reference that the package's layer is compared with, in numbers, time and
memory: every region's keys and values are made, every attention weight and
kernel is kept, features are cut out of maps level by level.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmdet.models.layers import SinePositionalEncoding
from mmdet.models.layers.transformer import DynamicConv
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi, bbox_cxcywh_to_xyxy
from torch import Tensor

from project.models.layers.transformer.proposal_refiner import (
    ProposalRefinerLayer,
)
from project.models.layers.transformer.query_groups import QueryGroups

RCA_POSITION = dict(num_feats=128, normalize=True, temperature=20)


@MODELS.register_module()
class PlainRefinerLayer(ProposalRefinerLayer):
    """The same parameters and results."""

    def forward(
        self,
        query: Tensor,
        *,
        value: Tensor,
        image_references: Tensor,
        image_sizes: Tensor,
        level_shapes: Sequence[tuple[int, int]],
        query_pos: Tensor | None = None,
        query_groups: QueryGroups | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As the package's layer, with every map and region in memory."""
        sizes = [height * width for height, width in level_shapes]
        maps = [
            level.transpose(1, 2).unflatten(2, shape).contiguous()
            for level, shape in zip(
                value.split(sizes, 1), level_shapes, strict=True
            )
        ]
        boxes = bbox_cxcywh_to_xyxy(image_references) * image_sizes[:, None]
        regions = self.roi_align.extractor(maps, bbox2roi(list(boxes)))
        mask = None
        if query_groups is not None:
            mask = ~query_groups.attention_mask(query.device)
        deform, dyconv, ca = (
            MultiheadAttention.forward(
                attention,
                query.clone(),
                query_pos=query_pos,
                key_pos=query_pos,
                attn_mask=mask,
            )
            for attention in (
                self.self_attn,
                self.dyconv_self_attn,
                self.ca_self_attn,
            )
        )
        deform = self.norms[0](merge(self.merger_SA, deform, dyconv, ca))
        deform = self.norms[1](
            self.cross_attn(
                query=deform,
                value=value,
                query_pos=query_pos,
                level_shapes=level_shapes,
                **kwargs,
            )
        )
        dyconv = self.dyconv_norms[0](dyconv)
        change = DynamicConv.forward(
            self.dy_conv, dyconv.flatten(0, 1), regions
        )
        dyconv = self.dyconv_norms[1](dyconv + change.view_as(dyconv))
        dyconv = self.dyconv_ffn(dyconv)
        ca = self.ca_norms[0](ca)
        refined = regional_cross_attention(
            self.regional_ca, ca.flatten(0, 1), regions
        )
        ca = self.ca_ffn(self.ca_norms[1](refined.view_as(ca)))
        deform = merge(self.merger_FFN, self.ffn(deform), dyconv, ca)
        deform = self.norms[2](deform)
        if not self.training:
            return deform, ()
        return deform, (self.ca_norms[2](ca), self.dyconv_norms[2](dyconv))


def merge(merger: Any, *features: Tensor) -> Tensor:
    """Sum features, weighted by channel."""
    stacked = torch.stack(features, -1)
    return (stacked * merger.weights).sum(-1)


def regional_cross_attention(
    part: Any, query: Tensor, regions: Tensor
) -> Tensor:
    """With all the keys and values, and the positions of every region."""
    mask = regions.new_zeros(
        (len(regions), *regions.shape[-2:]), dtype=torch.bool
    )
    position = SinePositionalEncoding(**RCA_POSITION)(mask)
    regions = regions.flatten(2).permute(2, 0, 1)
    position = position.flatten(2).permute(2, 0, 1).to(regions.dtype)
    tokens = part.sample_proj(query).unflatten(1, (part.sample_num, -1))
    attended = part.attn(tokens.transpose(0, 1), regions + position, regions)
    change = part.fc_layer(attended[0].transpose(0, 1).flatten(1))
    return query + part.fc_norm(change).relu()
