# Copyright (c) mmdetr authors. All rights reserved.
"""Random predictions and ground truth of a training step."""

from dataclasses import dataclass
from typing import Any

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import InstanceData
from torch import Tensor

from project.models.task_modules.set_prediction import (
    BatchHungarianAssigner,
    HungarianMatching,
    Predictions,
    PredictionSet,
    Scoring,
    SetTargets,
)

COSTS = [
    dict(type='FocalLossCost', weight=2.0, eps=1e-8),
    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='IoUCost', iou_mode='giou', weight=2.0),
]
"""H-DETR's, as its config has them."""


@dataclass
class SetPredictionBatch:
    """One batch, in the forms of the core and of the plain formulation."""

    groups: list[dict]
    plain_targets: list[dict[str, Tensor]]
    img_shapes: list[tuple[int, int]]

    def to(self, device: str) -> 'SetPredictionBatch':
        """Move the predictions and the ground truth."""
        for group in self.groups:
            for key in ('scores', 'unact'):
                leaf = group[key].detach().to(device)
                group[key] = leaf.requires_grad_()
        for target in self.plain_targets:
            target.update({k: v.to(device) for k, v in target.items()})
        return self

    def leaves(self) -> list[Tensor]:
        """The predictions, to take gradients of."""
        return [g[k] for g in self.groups for k in ('scores', 'unact')]

    def boxes(self, group: dict) -> Tensor:
        """Boxes of a group, (cx, cy, w, h), normalised."""
        return group['unact'].sigmoid()

    def predictions(self) -> list[Predictions]:
        """What a head predicts for the groups."""
        return [
            Predictions(
                group['scores'],
                self.boxes(group),
                group['settings']['prefix'],
                class_agnostic='class_agnostic' in group['settings'],
            )
            for group in self.groups
        ]

    def sets(
        self, assigner: BatchHungarianAssigner | None = None
    ) -> list[PredictionSet]:
        """The groups, matched by :data:`COSTS` unless told otherwise."""
        assigner = assigner or BatchHungarianAssigner(COSTS)
        return [
            PredictionSet(
                predictions,
                HungarianMatching(
                    assigner, group['settings'].get('num_copies', 1)
                ),
                Scoring(loss_weight=group['settings'].get('loss_weight', 1.0)),
            )
            for predictions, group in zip(
                self.predictions(), self.groups, strict=True
            )
        ]

    def instances(self) -> tuple[list[InstanceData], list[dict]]:
        """Ground truth and meta information of the images."""
        instances, metas = [], []
        for target, (height, width) in zip(
            self.plain_targets, self.img_shapes, strict=True
        ):
            size = target['boxes'].new_tensor([width, height] * 2)
            boxes = bbox_cxcywh_to_xyxy(target['boxes']) * size
            instances.append(
                InstanceData(bboxes=boxes, labels=target['labels'])
            )
            metas.append(dict(img_shape=(height, width)))
        return instances, metas

    def targets(self) -> SetTargets:
        """Ground truth as the criterion takes it."""
        return SetTargets.from_instances(
            *self.instances(), like=self.groups[0]['scores']
        )


def make_batch(
    num_gts: tuple[int, ...] = (7, 4),
    *,
    num_queries: tuple[int, int] = (30, 60),
    num_tokens: int = 500,
    num_layers: int = 3,
    num_classes: int = 11,
    num_copies: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> SetPredictionBatch:
    """Decoder-like outputs, half of them near ground truth."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=dtype)

    targets = [
        dict(
            labels=(rand(count) * num_classes).long(),
            boxes=torch.cat(
                [rand(count, 2) * 0.6 + 0.2, rand(count, 2) * 0.35 + 0.02], 1
            ),
        )
        for count in num_gts
    ]

    def group(layers: int, queries: int, **settings: Any) -> dict:
        scores = rand(layers, len(num_gts), queries, num_classes) * 6 - 5
        unact = rand(layers, len(num_gts), queries, 4) * 4 - 2
        for image, target in enumerate(targets):
            near = torch.arange(0, queries, 2)
            if len(target['boxes']):
                base = target['boxes'][near % len(target['boxes'])]
                noise = rand(layers, len(near), 4) * 0.6 - 0.3
                unact[:, image, near] = torch.logit(base) + noise
        return dict(
            scores=scores.requires_grad_(),
            unact=unact.requires_grad_(),
            settings=settings,
        )

    one2one, one2many = num_queries
    groups = [
        group(num_layers, one2one, prefix=''),
        group(1, num_tokens, prefix='enc_', class_agnostic=True),
        group(
            num_layers,
            one2many,
            prefix='one2many_',
            num_copies=num_copies,
            loss_weight=0.5,
        ),
    ]
    shapes = [(480 + 32 * i, 640 - 16 * i) for i in range(len(num_gts))]
    return SetPredictionBatch(groups, targets, shapes)
