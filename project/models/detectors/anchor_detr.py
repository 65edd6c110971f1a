# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.detectors import DetectionTransformer
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.settings import Eps, PositiveCount, checked

from ..layers.stage_outputs import DecoderOutput
from ..layers.transformer.anchor_detr_layers import (
    AnchorDecoder,
    AnchorEncoder,
    sine_encoding,
)
from ..layers.transformer.row_column_attention import AxisPair, Padding
from ..utils.own_weights import OwnWeightsMixin
from .finite_step import FiniteStepMixin
from .grey_images import GreyImagesMixin
from .tensor_mode import TensorModeMixin


@MODELS.register_module()
class AnchorDETR(
    FiniteStepMixin,
    GreyImagesMixin,
    OwnWeightsMixin,
    TensorModeMixin,
    DetectionTransformer,
):
    """Anchor DETR: a DETR whose queries are anchor points.

    Source: `Anchor DETR: Query Design for Transformer-Based Detector
    <https://arxiv.org/abs/2109.07107>`_. Each query is a learned pattern (its
    content) at a learned anchor point (its position, encoded like that of a
    pixel): section 3.3. There is one feature level, and attention to it is
    row-column decoupled: section 3.4.

    Args:
        num_queries (int): Number of points times ``num_patterns``. Defaults
            to 900.
        num_patterns (int): Patterns at each point. Defaults to 3.
        inverse_sigmoid_eps (float): Eps of the points' inverse sigmoid: 1e-5
            in the authors' repository, 1e-3 in detrex. Defaults to 1e-5.
        *args, **kwargs: As in mmdet's ``DetectionTransformer``, except for
            ``positional_encoding``, which is built in.

    Raises:
        UserError: If ``num_queries`` is not a multiple of ``num_patterns``,
            or the neck outputs several feature maps.
    """

    # Settings, which become modules when mmdet's constructor has them made.
    encoder: Any
    decoder: Any

    @checked('model')
    def __init__(
        self,
        *args: Any,
        decoder: dict,
        bbox_head: dict,
        num_queries: PositiveCount = 900,
        num_patterns: PositiveCount = 3,
        inverse_sigmoid_eps: Eps = 1e-5,
        **kwargs: Any,
    ) -> None:
        if num_queries % num_patterns:
            raise UserError(
                f'model.num_queries={num_queries} should be a multiple of '
                f'num_patterns={num_patterns}'
            )
        self.num_patterns = num_patterns
        bbox_head = {
            **bbox_head,
            'num_pred_layer': decoder['num_layers'],
            'inverse_sigmoid_eps': inverse_sigmoid_eps,
        }
        super().__init__(
            *args,
            decoder=decoder,
            bbox_head=bbox_head,
            num_queries=num_queries,
            **kwargs,
        )

    def _init_layers(self) -> None:
        """Initialize layers except for backbone, neck and bbox_head."""
        self.encoder = AnchorEncoder(**self.encoder)
        self.decoder = AnchorDecoder(**self.decoder)
        self.embed_dims = self.encoder.embed_dims
        num_points = self.num_queries // self.num_patterns
        self.patterns = nn.Embedding(self.num_patterns, self.embed_dims)
        self.anchor_points = nn.Embedding(num_points, 2)
        # Shared by pixels and points, by x and y and by all layers.
        self.axis_pos_mlp = _position_mlp(self.embed_dims)
        self.point_pos_mlp = _position_mlp(self.embed_dims)

    def init_weights(self) -> None:
        """Initialize weights like the authors: mostly PyTorch's defaults."""
        super().init_weights()
        nn.init.uniform_(self.anchor_points.weight)
        for module in self.neck.modules() if self.with_neck else ():
            if isinstance(module, nn.Conv2d):  # mmcv's init is another
                module.reset_parameters()

    def pre_transformer(
        self,
        img_feats: tuple[Tensor, ...],
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Encode the positions of rows and columns.

        Args:
            img_feats (tuple[Tensor]): The single feature map of the neck,
                has shape (bs, dim, h, w).
            batch_data_samples (list[:obj:`DetDataSample`], optional): Hold
                the size of each image within the batch. By default no image
                is padded.

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_encoder`` and
            of ``forward_decoder``.
        """
        if len(img_feats) != 1:
            raise UserError(
                f'model.neck gives {len(img_feats)} feature maps; Anchor '
                'DETR attends to one: set one of backbone.out_indices and '
                'neck.num_outs=1'
            )
        feat = img_feats[0].permute(0, 2, 3, 1)
        padding = _padding(batch_data_samples, feat)
        points = self.anchor_points.weight
        pos = tuple(
            self._axis_pos(_centres(feat.shape[axis], padded, like=points))
            for axis, padded in zip((2, 1), padding, strict=True)
        )
        encoder_inputs_dict = dict(feat=feat, feat_pos=pos, padding=padding)
        decoder_inputs_dict = dict(memory_pos=pos, padding=padding)
        return encoder_inputs_dict, decoder_inputs_dict

    def _axis_pos(self, coordinates: Tensor) -> Tensor:
        """Embed coordinates in [0, 1] along one axis: (...) to (..., dim)."""
        return self.axis_pos_mlp(sine_encoding(coordinates, self.embed_dims))

    def forward_encoder(
        self, feat: Tensor, feat_pos: AxisPair, padding: Padding
    ) -> dict:
        """Encode the features.

        The arguments are those of :meth:`AnchorEncoder.forward`.

        Returns:
            dict: Keyword arguments of ``pre_decoder``.
        """
        return dict(memory=self.encoder(feat, feat_pos, padding))

    def pre_decoder(self, memory: Tensor) -> tuple[dict, dict]:
        """Build the queries: every pattern at every point.

        Args:
            memory (Tensor): Encoded map, has shape (bs, h, w, dim).

        Returns:
            tuple[dict, dict]: Keyword arguments of ``forward_decoder``, and
            an empty dict for the head.
        """
        points = self.anchor_points.weight
        half = self.embed_dims // 2
        x, y = points.unbind(-1)
        query_pos = self.point_pos_mlp(
            torch.cat([sine_encoding(y, half), sine_encoding(x, half)], -1)
        )
        batch_size = memory.shape[0]
        query = self.patterns.weight.repeat_interleave(len(points), 0)

        def at_every_pattern(of_points: Tensor) -> Tensor:
            tiled = of_points.repeat(self.num_patterns, 1)
            return tiled.expand(batch_size, -1, -1)

        decoder_inputs_dict = dict(
            query=query.expand(batch_size, -1, -1),
            query_pos=at_every_pattern(query_pos),
            query_axis_pos=tuple(
                at_every_pattern(self._axis_pos(coordinate))
                for coordinate in (x, y)
            ),
            memory=memory,
            reference_points=at_every_pattern(points),
        )
        return decoder_inputs_dict, dict()

    def forward_decoder(
        self,
        query: Tensor,
        memory: Tensor,
        reference_points: Tensor,
        **kwargs: Any,
    ) -> dict:
        """Decode the queries.

        Args:
            query (Tensor): Queries, has shape (bs, num_queries, dim).
            memory (Tensor): Encoded map, has shape (bs, h, w, dim).
            reference_points (Tensor): Anchor points (cx, cy) in [0, 1], has
                shape (bs, num_queries, 2).
            **kwargs: Positions and padding for the decoder.

        Returns:
            dict: Keyword arguments of the head: ``decoder_output``, which
            has the anchor points as references of all layers.
        """
        hidden_states = self.decoder(query, memory, **kwargs)
        references = [reference_points] * len(hidden_states)
        return dict(decoder_output=DecoderOutput(hidden_states, references))


def _position_mlp(dims: int) -> nn.Sequential:
    """Build the MLP that adapts encoded positions."""
    return nn.Sequential(
        nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, dims)
    )


def _padding(samples: OptSampleList, feat: Tensor) -> Padding:
    """Find the padded columns, (bs, w), and rows, (bs, h), of a feature map.

    Masks are resized by nearest interpolation, as in the authors' code.
    """
    samples = samples or []
    if all(s.img_shape[:2] == s.batch_input_shape for s in samples):
        return None, None
    sizes = torch.tensor([sample.img_shape[:2] for sample in samples])
    padding = []
    for axis in (1, 0):
        full = torch.arange(samples[0].batch_input_shape[axis])
        padded = (full >= sizes[:, axis, None]).float()
        padded = F.interpolate(padded[:, None], feat.shape[1 + axis])[:, 0]
        padding.append(padded.bool().to(feat.device, non_blocking=True))
    columns, rows = padding
    return columns, rows


def _centres(length: int, padding: Tensor | None, like: Tensor) -> Tensor:
    """Centres of the columns (or rows), in [0, 1] of the unpadded image.

    Padding lies at the image's last column.

    Args:
        length (int): Number of columns.
        padding (Tensor, optional): True where padded, has shape
            (bs, length).
        like (Tensor): Gives dtype and device.

    Returns:
        Tensor: Has shape (bs or 1, length).
    """
    if padding is None:
        valid = like.new_ones(1, length)
    else:
        valid = (~padding).to(like.dtype)
    return (valid.cumsum(1) - 0.5) / valid.sum(1, keepdim=True)
