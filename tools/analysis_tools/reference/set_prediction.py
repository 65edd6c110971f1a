# Copyright (c) mmdetr authors. All rights reserved.
"""Matching and losses as DETRs have always written them.

Every layer of every query group on its own: targets repeated and
concatenated, one cost matrix of all queries of the batch against all targets
of the batch, one copy to the host, dense one-hot targets, and the GIoU of all
matched predictions with all matched targets. The batched core must agree
with it, and ``tools/analysis_tools/benchmark_set_prediction.py`` runs both.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Pairs = list[tuple[Tensor, Tensor]]


@dataclass
class PlainSetPrediction:
    """Weights and constants of H-DETR's matching and losses."""

    cls_weight: float = 2.0
    bbox_weight: float = 5.0
    giou_weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    log_eps: float = 1e-8

    def losses(
        self,
        scores: Tensor,
        boxes: Tensor,
        targets: list[dict[str, Tensor]],
        *,
        prefix: str = '',
        num_copies: int = 1,
        class_agnostic: bool = False,
        loss_weight: float = 1.0,
    ) -> tuple[dict[str, Tensor], list[Pairs]]:
        """Losses and pairs of one group.

        Args:
            scores: Logits, (num_layers, bs, num_queries, num_classes).
            boxes: (cx, cy, w, h) in [0, 1], (num_layers, bs, num_queries, 4).
            targets: ``labels`` and ``boxes`` of each image.
            prefix: Put before the names of the losses.
            num_copies: How often each target is repeated.
            class_agnostic: Whether all labels count as 0.
            loss_weight: Multiplies the losses.
        """
        targets = [
            dict(
                labels=target['labels'].repeat(num_copies)
                * (0 if class_agnostic else 1),
                boxes=target['boxes'].repeat(num_copies, 1),
            )
            for target in targets
        ]
        losses, all_pairs = {}, []
        for layer in range(len(scores)):
            last = layer == len(scores) - 1
            name = f'{"" if last else f"d{layer}."}{prefix}loss_'
            pairs = self.match(scores[layer], boxes[layer], targets)
            terms = self.layer_losses(
                scores[layer], boxes[layer], targets, pairs
            )
            for term, value in terms.items():
                losses[name + term] = value * loss_weight
            all_pairs.append(pairs)
        return losses, all_pairs

    @torch.no_grad()
    def match(
        self, scores: Tensor, boxes: Tensor, targets: list[dict]
    ) -> Pairs:
        """Queries and targets of the pairs of each image, of one layer."""
        batch_size, num_queries, _ = scores.shape
        prob = scores.flatten(0, 1).sigmoid()
        labels = torch.cat([target['labels'] for target in targets])
        gt_boxes = torch.cat([target['boxes'] for target in targets])
        negative = -(1 - prob + self.log_eps).log() * prob**self.gamma
        positive = -(prob + self.log_eps).log() * (1 - prob) ** self.gamma
        cls_cost = (
            self.alpha * positive[:, labels]
            - (1 - self.alpha) * negative[:, labels]
        )
        preds = boxes.flatten(0, 1)
        cost = (
            self.cls_weight * cls_cost
            + self.bbox_weight * torch.cdist(preds, gt_boxes, p=1)
            - self.giou_weight * pairwise_giou(preds, gt_boxes)
        )
        cost = cost.view(batch_size, num_queries, -1).cpu()
        counts = [len(target['labels']) for target in targets]
        solved = [
            linear_sum_assignment(part[image])
            for image, part in enumerate(cost.split(counts, -1))
        ]
        return [
            (torch.as_tensor(query), torch.as_tensor(target))
            for query, target in solved
        ]

    def layer_losses(
        self, scores: Tensor, boxes: Tensor, targets: list[dict], pairs: Pairs
    ) -> dict[str, Tensor]:
        """Weighted losses of one layer."""
        num_boxes = max(sum(len(t['labels']) for t in targets), 1)
        images = torch.cat(
            [torch.full_like(q, i) for i, (q, _) in enumerate(pairs)]
        )
        queries = torch.cat([query for query, _ in pairs])
        labels = torch.cat(
            [t['labels'][g] for t, (_, g) in zip(targets, pairs, strict=True)]
        )
        gt_boxes = torch.cat(
            [t['boxes'][g] for t, (_, g) in zip(targets, pairs, strict=True)]
        )
        num_classes = scores.shape[-1]
        classes = torch.full(
            scores.shape[:2], num_classes, device=scores.device
        )
        classes[images, queries] = labels
        one_hot = F.one_hot(classes, num_classes + 1)[..., :-1].to(scores)
        preds = boxes[images, queries]
        giou = pairwise_giou(preds, gt_boxes).diag()
        return dict(
            cls=self.cls_weight * self.focal(scores, one_hot) / num_boxes,
            bbox=self.bbox_weight
            * F.l1_loss(preds, gt_boxes, reduction='sum')
            / num_boxes,
            iou=self.giou_weight * (1 - giou).sum() / num_boxes,
        )

    def focal(self, scores: Tensor, one_hot: Tensor) -> Tensor:
        """Summed sigmoid focal loss of dense targets."""
        prob = scores.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(
            scores, one_hot, reduction='none'
        )
        missed = 1 - (prob * one_hot + (1 - prob) * (1 - one_hot))
        alpha = self.alpha * one_hot + (1 - self.alpha) * (1 - one_hot)
        return (alpha * entropy * missed**self.gamma).sum()


def pairwise_giou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """GIoU of all boxes (cx, cy, w, h) with all others."""
    boxes1, boxes2 = (
        torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], 1)
        for b in (boxes1, boxes2)
    )
    area1, area2 = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes1, boxes2))
    boxes1 = boxes1[:, None]
    inner = torch.min(boxes1[..., 2:], boxes2[:, 2:]) - torch.max(
        boxes1[..., :2], boxes2[:, :2]
    )
    overlap = inner.clamp(min=0).prod(-1)
    union = area1[:, None] + area2 - overlap
    outer = torch.max(boxes1[..., 2:], boxes2[:, 2:]) - torch.min(
        boxes1[..., :2], boxes2[:, :2]
    )
    enclosing = outer.clamp(min=0).prod(-1)
    return overlap / union - (enclosing - union) / enclosing
