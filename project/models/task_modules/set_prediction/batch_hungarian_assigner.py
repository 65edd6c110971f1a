# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmdet.models.task_modules import AssignResult, HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from project.utils.errors import UserError, check_weights

from ...utils.broken_matches import matchable
from ...utils.host_copy import HostCopy
from ...utils.precision import full_precision
from .pairwise_cost import CostInputs, pairwise_cost
from .structures import (
    MatchedPairs,
    PredictionSet,
    SetTargets,
    pairs_of_choice,
)

# From this many queries on only those that a match can use go to the host.
_MANY_QUERIES = 4096


@TASK_UTILS.register_module()
class BatchHungarianAssigner(HungarianAssigner):
    """Hungarian matching of all layers, query groups and images at once.

    It takes mmdet's ``match_costs`` and finds the assignments that mmdet's
    ``HungarianAssigner`` finds when called for each layer and image (DETR,
    section 3.1). But a cost is computed once for all layers, over the
    image's own ground truth and whatever the number of copies; and all the
    costs of a training step travel to the host in one transfer, which runs
    while the device goes on.

    Args:
        match_costs (list[dict] | dict): Configs of mmdet's match costs.
        late_match_costs (list[dict] | dict, optional): Costs that take their
            place late in the training, as Rank-DETR has it (section 3.3).
            By default there are none.
        late_begin (float): From which share of the training's iterations on,
            in [0, 1]. Defaults to 0.75.

    Raises:
        UserError: If ``late_begin`` is no such share, or a weight is
            negative.
    """

    def __init__(
        self,
        match_costs: list[dict] | dict,
        late_match_costs: list[dict] | dict | None = None,
        late_begin: float = 0.75,
    ) -> None:
        super().__init__(match_costs)
        if not 0 <= late_begin <= 1:
            raise UserError(
                f'train_cfg.assigner.late_begin={late_begin} should be a '
                "share of the training's iterations, 0 to 1"
            )
        for index, cost in enumerate(self.match_costs):
            check_weights(f'train_cfg.assigner.match_costs[{index}]', cost)
        self.late_match_costs = None
        self.late_begin = late_begin
        if late_match_costs is not None:
            self.late_match_costs = HungarianAssigner(
                late_match_costs
            ).match_costs
            for index, cost in enumerate(self.late_match_costs):
                name = f'train_cfg.assigner.late_match_costs[{index}]'
                check_weights(name, cost)

    def current_costs(self) -> list[BaseMatchCost]:
        """The costs at this point of the training.

        The Runner tells how far it has come (and does so again after
        ``--resume``) through mmengine's message hub; without a Runner it has
        not begun.
        """
        if self.late_match_costs is None:
            return self.match_costs
        hub = MessageHub.get_current_instance()
        iteration, total = hub.get_info('iter', 0), hub.get_info('max_iters')
        # A quotient is 0.75 exactly where the decimals say so.
        is_late = total and iteration / total >= self.late_begin
        return self.late_match_costs if is_late else self.match_costs

    @full_precision
    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        img_meta: dict | None = None,
        **kwargs,
    ) -> AssignResult:
        """Match the predictions of one layer in one image.

        Args:
            pred_instances (:obj:`InstanceData`): ``bboxes`` in pixels
                (x1, y1, x2, y2), has shape (num_queries, 4), and logits
                ``scores``, has shape (num_queries, num_classes).
            gt_instances (:obj:`InstanceData`): ``bboxes`` in pixels, has
                shape (num_gts, 4), and ``labels``, has shape (num_gts, ).
            img_meta (dict): Meta information of the image.

        Returns:
            :obj:`AssignResult`: For each query 0 or, of its target, 1 + the
            index.
        """
        num_gts, num_queries = len(gt_instances), len(pred_instances)
        labels = gt_instances.labels
        gt_inds = labels.new_zeros(num_queries)
        assigned_labels = labels.new_full((num_queries,), -1)
        targets = SetTargets.from_instances(
            [gt_instances],
            [img_meta],
            like=pred_instances.bboxes,
            num_classes=pred_instances.scores.shape[1],
        )
        boxes = pred_instances.bboxes / targets.image_sizes
        predictions = PredictionSet(
            prefix='',
            cls_scores=pred_instances.scores[None, None],
            bbox_preds=bbox_xyxy_to_cxcywh(boxes)[None, None],
        )
        (pairs,) = self.start([predictions], targets).result()
        gt_inds[pairs.query] = pairs.target + 1
        assigned_labels[pairs.query] = labels[pairs.target]
        return AssignResult(
            num_gts, gt_inds, max_overlaps=None, labels=assigned_labels
        )

    @torch.no_grad()
    @full_precision
    def start(
        self, sets: Sequence[PredictionSet], targets: SetTargets
    ) -> 'PendingMatch':
        """Compute the costs and send them on their way to the host.

        With them travels what the assigners of sets choose that have one.

        Args:
            sets (Sequence[PredictionSet]): Predictions. Those that have
                their pairs already are left alone.
            targets (SetTargets): Ground truth.

        Returns:
            PendingMatch: Whose ``result()`` solves the assignments.
        """
        blocks = [
            (predictions.matcher or self)._cost_block(
                predictions, targets, index, image
            )
            for index, predictions in enumerate(sets)
            if predictions.pairs is None and predictions.assigner is None
            if predictions.num_queries
            for image, num_gts in enumerate(targets.counts)
            if num_gts
        ]
        choices = {
            index: predictions.assigner.choose(predictions.priors, targets)
            for index, predictions in enumerate(sets)
            if predictions.pairs is None and predictions.assigner is not None
        }
        return PendingMatch(sets, targets, blocks, choices)

    def num_copies(
        self, predictions: PredictionSet, num_gts: int
    ) -> list[int]:
        """How often each target is matched in each layer.

        Args:
            predictions (PredictionSet): Predictions.
            num_gts (int): Targets of the image.

        Returns:
            list[int]: As the set has it.
        """
        return predictions.copies

    def _cost_block(
        self,
        predictions: PredictionSet,
        targets: SetTargets,
        index: int,
        image: int,
    ) -> '_CostBlock':
        """Cost of one set in one image, for all its layers."""
        of_image = targets.of_image(image)
        scores = predictions.cls_scores[:, image]
        labels = targets.labels[of_image]
        if predictions.class_agnostic:
            scores, labels = scores[..., :1], torch.zeros_like(labels)
        dtype = targets.bboxes_normalized.dtype
        inputs = CostInputs(
            prefix=predictions.prefix,
            num_layers=predictions.num_layers,
            scores=scores.flatten(0, 1).to(dtype),
            boxes=predictions.bbox_preds[:, image].flatten(0, 1).to(dtype),
            labels=labels,
            gt_boxes=targets.bboxes_normalized[of_image],
            image_size=targets.image_sizes[image],
            img_meta=targets.img_metas[image],
        )
        costs = self.current_costs()
        cost = sum(pairwise_cost(cost, inputs) for cost in costs)
        cost = matchable(cost.unflatten(0, (predictions.num_layers, -1)).mT)
        if predictions.valid is not None:
            is_out = ~predictions.valid[:, image, None]
            cost = cost.masked_fill(is_out, torch.inf)
        copies = self.num_copies(predictions, len(labels))
        block = _CostBlock(index, image, copies, cost)
        block.has_out = predictions.valid is not None
        return block.pruned() if cost.shape[-1] >= _MANY_QUERIES else block


@dataclass
class _CostBlock:
    """Costs of one set in one image.

    Args:
        set_index (int): Which set.
        image (int): Which image.
        copies (list[int]): Copies of each target, for each layer.
        cost (Tensor): Has shape (num_layers, num_gts, num_columns).
        queries (Tensor, optional): Query of each column, may repeat, has
            shape (num_layers, num_columns). By default columns are queries.
        has_out (bool): Whether some queries take no part, whose cost is
            infinite. Defaults to False.
    """

    set_index: int
    image: int
    copies: list[int]
    cost: Tensor
    queries: Tensor | None = None
    has_out: bool = False

    def pruned(self) -> '_CostBlock':
        """Keep the queries that an optimal assignment can use.

        Each target needs at most its ``num_gts * copies`` cheapest queries:
        were it matched to another, one of these would be free and cheaper.
        """
        _, num_gts, num_queries = self.cost.shape
        num_useful = num_gts * max(self.copies)
        if num_gts * num_useful >= num_queries:
            return self
        cheapest = self.cost.topk(num_useful, largest=False, sorted=False)
        queries = cheapest.indices.flatten(1)
        index = queries[:, None].expand(-1, num_gts, -1)
        return _CostBlock(
            self.set_index,
            self.image,
            self.copies,
            self.cost.gather(2, index),
            queries,
            self.has_out,
        )

    def tensors(self) -> list[Tensor]:
        """What has to travel; a float32 holds indices up to 2**24."""
        if self.queries is None:
            return [self.cost]
        return [self.cost, self.queries.to(self.cost.dtype)]

    def solve(
        self, cost: np.ndarray, queries: np.ndarray | None = None
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Match each layer, given :meth:`tensors` on the host.

        Yields:
            tuple[int, ndarray, ndarray]: Layer, and queries and targets of
            its pairs.
        """
        for layer, num_copies in enumerate(self.copies):
            columns, layer_cost = None, cost[layer]
            if queries is not None:
                columns, first = np.unique(queries[layer], return_index=True)
                layer_cost = layer_cost[:, first]
            if self.has_out:
                takes_part = ~np.isposinf(layer_cost).all(0)
                layer_cost = layer_cost[:, takes_part]
                if columns is None:
                    columns = np.arange(len(takes_part))
                columns = columns[takes_part]
            query, target = _solve(layer_cost, num_copies)
            if columns is not None:
                query = columns[query].astype(np.int64)
            yield layer, query, target


def _solve(cost: np.ndarray, num_copies: int) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest assignment of queries to targets, each repeated.

    Args:
        cost (ndarray): Has shape (num_gts, num_queries).
        num_copies (int): How often each target is to be matched.

    Returns:
        tuple[ndarray, ndarray]: Queries and targets, each has shape
        (num_pairs, ), sorted by query.

    Raises:
        UserError: If a cost is not a number.
    """
    try:
        rows, query = linear_sum_assignment(np.tile(cost, (num_copies, 1)))
    except ValueError as error:
        raise UserError(
            'The matching cost holds NaN or infinity: the predictions have '
            'diverged, or a ground-truth box or label is not a number; lower '
            'the learning rate or check the annotations'
        ) from error
    order = query.argsort()
    return query[order], rows[order] % len(cost)


class PendingMatch:
    """Costs, and choices of assigners, on their way to the host.

    Args:
        sets (Sequence[PredictionSet]): The sets to match.
        targets (SetTargets): Ground truth.
        blocks (list[_CostBlock]): Costs of each set and image.
        choices (dict[int, Tensor]): Of sets that have an assigner, by their
            index, the queries of each target, see ``TopKIoUAssigner``.
    """

    def __init__(
        self,
        sets: Sequence[PredictionSet],
        targets: SetTargets,
        blocks: list[_CostBlock],
        choices: dict[int, Tensor],
    ) -> None:
        self._sets = sets
        self._targets = targets
        self._blocks = blocks
        self._choices = choices
        dtype = targets.bboxes_normalized.dtype
        tensors = [t for block in blocks for t in block.tensors()]
        # Indices of queries, as those of blocks, see _CostBlock.tensors.
        tensors += [choice.to(dtype) for choice in choices.values()]
        self._sizes = [t.numel() for t in tensors]
        self._shapes = [t.shape for t in tensors]
        if tensors:
            self._copy = HostCopy(torch.cat([t.flatten() for t in tensors]))

    def result(self) -> list[MatchedPairs]:
        """Wait for the costs and solve all the assignments.

        Returns:
            list[MatchedPairs]: Pairs of each set.

        Raises:
            UserError: If a label is no class, or a cost not a number.
        """
        columns: list[list[np.ndarray]] = [[] for _ in self._sets]
        arrays = self._arrays()
        self._targets.check_labels()
        for block in self._blocks:
            offset = self._targets.offsets[block.image]
            parts = [next(arrays) for _ in block.tensors()]
            for layer, query, target in block.solve(*parts):
                pairs = np.empty((4, len(query)), dtype=np.int64)
                pairs[0], pairs[1] = layer, block.image
                pairs[2], pairs[3] = query, target + offset
                columns[block.set_index].append(pairs)
        for index, choice in zip(self._choices, arrays, strict=True):
            num_layers = self._sets[index].num_layers
            columns[index].append(
                pairs_of_choice(choice, self._targets.counts, num_layers)
            )
        return self._to_device(columns)

    def _arrays(self) -> Iterator[np.ndarray]:
        """The tensors that travelled, as arrays of their own shape."""
        if not self._shapes:
            return iter(())
        pieces = np.split(self._copy.wait(), np.cumsum(self._sizes)[:-1])
        return iter(
            [
                piece.reshape(shape)
                for piece, shape in zip(pieces, self._shapes, strict=True)
            ]
        )

    def _to_device(
        self, columns: list[list[np.ndarray]]
    ) -> list[MatchedPairs]:
        """Send the pairs of all sets to the device, in one transfer."""
        empty = np.empty((4, 0), dtype=np.int64)
        tables = [np.concatenate([empty, *c], axis=1) for c in columns]
        merged = torch.from_numpy(np.concatenate(tables, axis=1))
        device = self._targets.labels.device
        if device.type == 'cuda':
            merged = merged.pin_memory().to(device, non_blocking=True)
        split = merged.split([t.shape[1] for t in tables], dim=1)
        return [
            predictions.pairs
            if predictions.pairs is not None
            else MatchedPairs(
                *rows.unbind(),
                np.bincount(
                    table[0], minlength=predictions.num_layers
                ).tolist(),
            )
            for predictions, rows, table in zip(
                self._sets, split, tables, strict=True
            )
        ]
