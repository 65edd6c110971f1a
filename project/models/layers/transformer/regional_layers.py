# Copyright (c) mmdetr authors. All rights reserved.
"""Layers that refine queries by their RoI features."""

import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, Literal

import torch
from mmcv.cnn import build_activation_layer, build_norm_layer
from mmcv.cnn.bricks.drop import build_dropout
from mmdet.models.layers import SinePositionalEncoding
from mmdet.models.layers.transformer import DynamicConv
from mmengine.model import BaseModule
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.settings import checked

from ...utils.weight_init import SelfInitialized
from ..recomputation import recomputed

# Order of the in-projections in nn.MultiheadAttention.
_QUERIES, _KEYS, _VALUES = range(3)


class RegionalCrossAttention(BaseModule):
    """Cross-attention of queries to their RoI features.

    Source: HPR, "Hybrid Proposal Refiner" (CVPR 2024), regional cross
    attention. A query is split into ``sample_num`` tokens, which attend to
    the points of its region; the attended tokens are merged again.

    Keys and values of the points are never computed: the projection of the
    keys is applied to the queries instead, and that of the values to the
    weighted sum of the features. The positions of the points are the same in
    all regions.

    Args:
        embed_dims (int): Dimension of queries and features. Defaults to 256.
        num_heads (int): Number of heads. Defaults to 8.
        sample_num (int): Tokens of each query. Defaults to 5.
        use_key_pos (bool): Whether to add positional encodings to the keys.
            Defaults to True.
        roi_size (int): Points of a region along each axis. Defaults to 7.
        positional_encoding (dict, optional): Settings of mmdet's
            ``SinePositionalEncoding`` of these positions.
        attn_drop (float): Must be 0.
        proj_drop (float): Dropout of the attended tokens. Defaults to 0.
        dropout_layer (dict, optional): Dropout before the residual
            connection.
        norm_cfg (dict): Config of the norm before it.
        act_cfg (dict): Config of the activation before it.
        init_cfg (dict, optional): Initialization config.
        batch_first (bool): Ignored, since no axis is that of the batch; the
            authors' configs set it. Defaults to True.
        with_cp (bool): Whether to use activation checkpointing. Defaults to
            True.

    Raises:
        UserError: If ``attn_drop`` is not 0.
    """

    def __init__(
        self,
        embed_dims: int = 256,
        num_heads: int = 8,
        sample_num: int = 5,
        use_key_pos: bool = True,
        roi_size: int = 7,
        positional_encoding: dict | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        dropout_layer: dict | None = None,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
        batch_first: bool = True,
        with_cp: bool = True,
    ) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp
        if attn_drop:
            raise UserError(
                'model.decoder.layer_cfg.regional_ca_cfg.attn_drop='
                f'{attn_drop} should be 0: attention weights are not kept'
            )
        self.roi_size = roi_size
        self.sample_num = sample_num
        self.sample_proj = nn.Linear(embed_dims, embed_dims * sample_num)
        self.attn = nn.MultiheadAttention(embed_dims, num_heads)
        self.fc_layer = nn.Linear(embed_dims * sample_num, embed_dims)
        norm_cfg = norm_cfg or dict(type='LN')
        self.fc_norm = build_norm_layer(norm_cfg, embed_dims)[1]
        self.activation = build_activation_layer(
            act_cfg or dict(type='ReLU', inplace=True)
        )
        self.proj_drop = nn.Dropout(proj_drop)
        self.dropout = (
            build_dropout(dropout_layer) if dropout_layer else nn.Identity()
        )
        position = None
        if use_key_pos:
            settings = positional_encoding or dict(
                num_feats=embed_dims // 2, normalize=True, temperature=20
            )
            position = _grid_encoding(settings, roi_size)
        self.register_buffer('position', position, persistent=False)

    def forward(self, query: Tensor, regions: Tensor) -> Tensor:
        """Attend to the regions.

        Args:
            query (Tensor): Queries, has shape (num_queries, dim).
            regions (Tensor): Their RoI features, has shape
                (num_queries, num_points, dim).

        Returns:
            Tensor: Refined queries, has the shape of ``query``.
        """
        attend = partial(recomputed, self._attend)
        attended = (attend if self.with_cp else self._attend)(query, regions)
        change = self.fc_layer(self.proj_drop(attended))
        change = self.activation(self.fc_norm(change))
        return query + self.dropout(change)

    def _attend(self, query: Tensor, regions: Tensor) -> Tensor:
        """Let the tokens of each query attend to its region.

        Returns:
            Tensor: Concatenated tokens, has shape
            (num_queries, sample_num * dim).
        """
        heads = self.attn.num_heads
        weight = self.attn.in_proj_weight.unflatten(0, (3, heads, -1))
        bias = self.attn.in_proj_bias.unflatten(0, (3, heads, -1))
        tokens = self.sample_proj(query).unflatten(1, (self.sample_num, -1))
        # One matrix product for each head: (head, query and token, dim).
        tokens = torch.matmul(
            tokens.flatten(0, 1), weight[_QUERIES].transpose(1, 2)
        )
        tokens = (tokens + bias[_QUERIES][:, None]) / math.sqrt(
            tokens.shape[-1]
        )
        # The bias of the keys shifts all scores of a token equally.
        on_features = torch.matmul(tokens, weight[_KEYS])
        scores = torch.bmm(
            self._by_query(on_features, query.shape[0]),
            regions.transpose(1, 2),
        )
        if self.position is not None:
            keys = torch.matmul(self.position, weight[_KEYS].transpose(1, 2))
            on_positions = torch.matmul(tokens, keys.transpose(1, 2))
            scores = scores + self._by_query(on_positions, query.shape[0])
        found = torch.bmm(scores.softmax(-1), regions)
        found = found.unflatten(1, (heads, self.sample_num)).transpose(0, 1)
        values = torch.matmul(
            found.flatten(1, 2), weight[_VALUES].transpose(1, 2)
        )
        values = values + bias[_VALUES][:, None]  # weights sum to one
        values = values.transpose(0, 1).flatten(1)
        return self.attn.out_proj(values).view(query.shape[0], -1)

    def _by_query(self, tensor: Tensor, num_queries: int) -> Tensor:
        """Move the heads after the queries: (query, head and token, dim)."""
        tensor = tensor.unflatten(1, (num_queries, self.sample_num))
        return tensor.transpose(0, 1).flatten(1, 2)


class RegionalDynamicConv(DynamicConv):
    """mmdet's ``DynamicConv`` with activation checkpointing.

    Source: Sparse R-CNN, section 3 (dynamic instance interactive head). The
    kernels of a query are 128 times its size.

    Args:
        *args: As in mmdet's class.
        dropout (float): Dropout of the result. Defaults to 0.
        with_cp (bool): Whether to recompute the kernels in the backward
            pass. Defaults to True.
        **kwargs: As in mmdet's class.
    """

    def __init__(
        self,
        *args: Any,
        dropout: float = 0.0,
        with_cp: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.with_cp = with_cp
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, regions: Tensor) -> Tensor:
        """Filter the regions by kernels generated from the queries.

        Args:
            query (Tensor): Queries, has shape (num_queries, in_channels).
            regions (Tensor): Their RoI features, has shape
                (num_queries, num_points, in_channels).

        Returns:
            Tensor: Has shape (num_queries, out_channels).
        """
        apply = partial(recomputed, self._filter)
        filtered = (apply if self.with_cp else self._filter)(query, regions)
        change = self.activation(self.fc_norm(self.fc_layer(filtered)))
        return self.dropout(change)

    def _filter(self, query: Tensor, regions: Tensor) -> Tensor:
        """Generate and apply the kernels.

        Returns:
            Tensor: Has shape (num_queries, num_points * out_channels).
        """
        sizes = (self.num_params_in, self.num_params_out)
        into, out_of = self.dynamic_layer(query).split(sizes, dim=1)
        into = into.view(-1, self.in_channels, self.feat_channels)
        out_of = out_of.view(-1, self.feat_channels, self.out_channels)
        features = torch.bmm(regions, into)
        features = self.activation(self.norm_in(features))
        features = torch.bmm(features, out_of)
        return self.activation(self.norm_out(features)).flatten(1)


class Merger(SelfInitialized):
    """Weighted sum of features.

    Source: HPR, "Hybrid Proposal Refiner" (CVPR 2024), feature injection.

    Args:
        merge_method (str): ``'learnable_channel_aware'``, a weight for each
            feature and channel; ``'learnable'``, one for each feature; or
            ``'add'``, a plain sum.
        initial_weights (Sequence[float]): Initial value of each learned
            weight.
        embed_dims (int): Dimension of the features.
        is_drawn (bool): Whether to keep the weights that the transformer has
            initialized by Xavier. Defaults to False.
    """

    @checked('model.decoder.layer_cfg')
    def __init__(
        self,
        merge_method: Literal['learnable_channel_aware', 'learnable', 'add'],
        initial_weights: Sequence[float],
        embed_dims: int,
        is_drawn: bool = False,
    ) -> None:
        super().__init__()
        self.is_drawn = is_drawn
        if merge_method == 'add':
            initial_weights = [1] * len(initial_weights)
        self.initial_weights = list(initial_weights)
        weights = torch.tensor(initial_weights, dtype=torch.float32)
        if merge_method == 'add':
            self.register_buffer('weights', weights)
        elif merge_method == 'learnable':
            self.weights = nn.Parameter(weights)
        else:
            self.weights = nn.Parameter(weights.repeat(embed_dims, 1))

    @torch.no_grad()
    def init_weights(self) -> None:
        """Set the weights to the initial ones, unless ``is_drawn``."""
        if self.is_drawn:
            return
        initial = self.weights.new_tensor(self.initial_weights)
        self.weights.copy_(initial.expand_as(self.weights))

    def forward(self, *features: Tensor) -> Tensor:
        """Compute the weighted sum.

        Args:
            *features (Tensor): One for each weight, each has shape
                (..., dim).

        Returns:
            Tensor: Has shape (..., dim).
        """
        weights = self.weights.unbind(-1)
        weighted = (w * x for w, x in zip(weights, features, strict=True))
        return reduce(torch.add, weighted)


def _grid_encoding(settings: dict, size: int) -> Tensor:
    """Positional encoding of a square, has shape (size * size, dim)."""
    encoding = SinePositionalEncoding(**settings)
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    return encoding(mask)[0].flatten(1).T.contiguous()
