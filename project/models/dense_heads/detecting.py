# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from project.utils.settings import PositiveCount, read_settings

from ..layers.stage_outputs import DecoderOutput
from ..utils.box_ops import image_sizes
from ..utils.compiling import constant_when_compiled
from ..utils.gather import gather_points
from ..utils.precision import full_precision


@dataclass(frozen=True)
class DetectionSettings:
    """Settings that a head reads from ``test_cfg``.

    Attributes:
        max_per_img (int, optional): Detections per image, by default the
            number of queries.
        clip_bboxes (bool): Whether to clip boxes to the image, which the
            authors' evaluation does not.
        num_decoder_layers (int, optional): Decoder layers, of which the last
            detects; by default all. Fewer show what the others contribute.
    """

    max_per_img: PositiveCount | None = None
    clip_bboxes: bool = True
    num_decoder_layers: PositiveCount | None = None


class Selection(NamedTuple):
    """The (query, class) pairs that become detections, best first.

    Attributes:
        scores (Tensor): Has shape (bs, n).
        labels (Tensor): Has shape (bs, n).
        boxes (Tensor): Unclipped boxes (x1, y1, x2, y2), normalized by the
            image size, has shape (bs, n, 4).
        is_filler (Tensor, optional): True for the last entries of an image
            that has fewer than n detections, has shape (bs, n). None if all
            are detections.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    is_filler: Tensor | None = None


class DetectingMixin(DETRHead):
    """Prediction of a head that has ``forward_layer``."""

    default_settings = DetectionSettings()
    test_cfg: Any  # mmdet's heads set it

    def detection_settings(self) -> DetectionSettings:
        """Read the current ``test_cfg``; keys of other heads are ignored."""
        defaults = self.default_settings
        known = vars(defaults).keys()
        given = {k: v for k, v in (self.test_cfg or {}).items() if k in known}
        dicts = {k: v for k, v in given.items() if isinstance(v, dict)}
        return _read(
            defaults,
            tuple((k, v) for k, v in given.items() if k not in dicts),
            tuple((k, tuple(v.items())) for k, v in dicts.items()),
        )

    @contextmanager
    def ending_after(self, num_decoder_layers: int) -> Iterator[None]:
        """Let an earlier decoder layer detect.

        Args:
            num_decoder_layers (int): As in :class:`DetectionSettings`.
        """
        whole = self.test_cfg
        self.test_cfg = {
            **(whole or {}),
            'num_decoder_layers': num_decoder_layers,
        }
        try:
            yield
        finally:
            self.test_cfg = whole

    def predict(
        self,
        decoder_output: DecoderOutput,
        batch_data_samples: SampleList,
        rescale: bool = True,
        **kwargs: Any,
    ) -> InstanceList:
        """Predict with the last decoder layer, or an earlier one.

        Args:
            decoder_output (DecoderOutput): Queries and references.
            batch_data_samples (list[:obj:`DetDataSample`]): Hold the image
                sizes.
            rescale (bool): Whether to return boxes in the scale of the
                original images. Defaults to True.
            **kwargs: Inputs of the loss, unused.

        Returns:
            list[:obj:`InstanceData`]: For each image, best first, ``bboxes``
            in pixels (x1, y1, x2, y2), ``scores`` and ``labels``.
        """
        cls_scores, bbox_preds, limits = self._last_layer(decoder_output)
        metas = [sample.metainfo for sample in batch_data_samples]
        results = self.predict_by_feat(
            cls_scores, bbox_preds, metas, rescale=rescale
        )
        if limits is None:
            return results
        return [
            instances[:limit]
            for instances, limit in zip(results, limits.tolist(), strict=True)
        ]

    def detect(
        self, decoder_output: DecoderOutput, batch_data_samples: SampleList
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict with the last decoder layer, into tensors of fixed sizes.

        Args:
            decoder_output (DecoderOutput): Queries and references.
            batch_data_samples (list[:obj:`DetDataSample`]): Hold the image
                sizes, one for each image or for all.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes (x1, y1, x2, y2) in pixels
            of the network's input, has shape (bs, n, 4), scores and labels,
            best first, each has shape (bs, n). Where an image has fewer than
            n detections, boxes and scores are 0 and labels -1.
        """
        shapes = [sample.img_shape for sample in batch_data_samples]
        return self._in_fixed_sizes(*self._last_layer(decoder_output), shapes)

    @full_precision
    def _in_fixed_sizes(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        limits: Tensor | None,
        shapes: list[tuple[int, int]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Select what :meth:`detect` returns from the last layer."""
        found = self.select_detections(cls_scores, bbox_preds)
        is_filler = found.is_filler
        if limits is not None:
            places = torch.arange(found.scores.shape[1], device=limits.device)
            is_filler = places >= limits[:, None]
        boxes = found.boxes
        if self.detection_settings().clip_bboxes:
            boxes = boxes.clamp(0, 1)
        boxes = boxes * image_sizes(shapes, like=boxes)[:, None]
        if is_filler is None:
            return boxes, found.scores, found.labels
        return (
            boxes.masked_fill(is_filler[..., None], 0.0),
            found.scores.masked_fill(is_filler, 0.0),
            found.labels.masked_fill(is_filler, -1),
        )

    def _last_layer(
        self, decoder_output: DecoderOutput
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits and boxes of the last layer, without queries ruled out.

        Returns:
            tuple[Tensor, Tensor, Tensor | None]: Logits, boxes and, if
            queries may be ruled out, the number of (query, class) pairs of
            each image, has shape (bs, ).
        """
        num_layers = self.detection_settings().num_decoder_layers
        if num_layers is not None:
            decoder_output = decoder_output.first_layers(num_layers)
        *_, last_layer = enumerate(decoder_output.layers())
        layer_id, inputs = last_layer
        cls_scores, bbox_preds = self.forward_layer(layer_id, *inputs)
        detectable = self.detectable_queries(decoder_output)
        if detectable is None:
            return cls_scores, bbox_preds, None
        cls_scores = cls_scores.masked_fill(~detectable[..., None], -torch.inf)
        return cls_scores, bbox_preds, detectable.sum(1) * self.num_classes

    def detectable_queries(
        self, decoder_output: DecoderOutput
    ) -> Tensor | None:
        """Mask of the queries of the last layer that may be detections.

        Args:
            decoder_output (DecoderOutput): Queries, with their groups.

        Returns:
            Tensor | None: Has shape (bs, num_queries); None, the default,
            if all may.
        """
        return None

    @full_precision
    def predict_by_feat(
        self,
        cls_scores: Tensor,
        bbox_preds: Tensor,
        batch_img_metas: list[dict],
        rescale: bool = True,
    ) -> InstanceList:
        """Select the detections of each image.

        Args:
            cls_scores (Tensor): Logits of the last layer, has shape
                (bs, num_queries, num_classes).
            bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (bs, num_queries, 4).
            batch_img_metas (list[dict]): Meta information of each image.
            rescale (bool): As in :meth:`predict`. Defaults to True.

        Returns:
            list[:obj:`InstanceData`]: As in :meth:`predict`.
        """
        clips = self.detection_settings().clip_bboxes
        found = self.select_detections(cls_scores, bbox_preds)
        sizes = _output_sizes(batch_img_metas, rescale, bbox_preds)
        counts = [found.scores.shape[1]] * len(sizes)
        if found.is_filler is not None:
            counts = (~found.is_filler).sum(1).tolist()
        return [
            InstanceData(
                bboxes=(boxes.clamp(0, 1) if clips else boxes)[:count] * size,
                scores=scores[:count],
                labels=labels[:count],
            )
            for scores, labels, boxes, size, count in zip(
                *found[:3], sizes, counts, strict=True
            )
        ]

    def select_detections(
        self, cls_scores: Tensor, bbox_preds: Tensor
    ) -> Selection:
        """Select the (query, class) pairs that become detections.

        By default the ``test_cfg.max_per_img`` best of each image.

        Args:
            cls_scores (Tensor): Logits, has shape
                (bs, num_queries, num_classes).
            bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (bs, num_queries, 4).

        Returns:
            Selection: The same number of each image.
        """
        wanted = self.detection_settings().max_per_img
        wanted = wanted or cls_scores.shape[1]
        return self.best_scored(cls_scores, bbox_preds, wanted)

    def best_scored(
        self, cls_scores: Tensor, bbox_preds: Tensor, wanted: int
    ) -> Selection:
        """Top-k (query, class) pairs by score.

        Args:
            cls_scores (Tensor): Logits, has shape
                (bs, num_queries, num_classes).
            bbox_preds (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (bs, num_queries, 4).
            wanted (int): Number of pairs, at most.

        Returns:
            Selection: The pairs.
        """
        # By logits: near 1, different logits round to equal probabilities.
        num_scores = cls_scores[0].numel()
        indices = cls_scores.flatten(1).topk(min(wanted, num_scores)).indices
        boxes = gather_points(bbox_preds, indices // self.num_classes)
        return Selection(
            cls_scores.sigmoid().flatten(1).gather(1, indices),
            indices % self.num_classes,
            bbox_cxcywh_to_xyxy(boxes),
        )


@constant_when_compiled
def _read(
    defaults: DetectionSettings, values: tuple, dicts: tuple
) -> DetectionSettings:
    """Read settings, of which those that are dicts come as tuples."""
    given = dict(values) | {key: dict(items) for key, items in dicts}
    return read_settings(defaults, given, 'model.test_cfg')


def _output_sizes(
    img_metas: list[dict], rescale: bool, like: Tensor
) -> Tensor:
    """Size (w, h, w, h) of each image in pixels, has shape (bs, 4)."""
    sizes = []
    for meta in img_metas:
        height, width = meta['img_shape'][:2]
        scale_w, scale_h = meta['scale_factor'] if rescale else (1.0, 1.0)
        sizes.append([width / scale_w, height / scale_h] * 2)
    # new_tensor would synchronize host and device.
    table = torch.tensor(sizes, dtype=like.dtype)
    return table.to(like.device, non_blocking=True)
