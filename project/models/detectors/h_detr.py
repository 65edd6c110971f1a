# Copyright (c) mmdetr authors. All rights reserved.
from dataclasses import dataclass, replace
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.settings import Count, NonNegative, read_settings

from ..layers.transformer.query_groups import QueryGroup, QueryGroups
from .base_deformable_detr import BaseDeformableDETR


@dataclass(frozen=True)
class OneToMany:
    """Settings of the group of queries that is matched one-to-many.

    Attributes:
        num_queries (int): Number of queries, T in the paper.
        num_copies (int): Copies of each ground truth, K.
        loss_weight (float): Weight of the group's losses, lambda.
    """

    num_queries: Count = 0
    num_copies: Count = 0
    loss_weight: NonNegative = 1.0

    @classmethod
    def read(cls, one2many: dict | None) -> 'OneToMany':
        """Read a detector's setting; without copies the group is empty."""
        group = read_settings(cls(), one2many, 'model.one2many')
        return group if group.num_copies else replace(group, num_queries=0)


@MODELS.register_module()
class HDETR(BaseDeformableDETR):
    """H-Deformable-DETR: Deformable DETR with hybrid matching.

    Source: `DETRs with Hybrid Matching
    <https://arxiv.org/abs/2207.13080>`_, section 3.3 (hybrid branch).

    In training, a second group of queries is matched one-to-many, against
    ``num_copies`` copies of every ground truth. The groups share all weights
    and do not attend to each other; evaluation uses the first group only.

    The best ``num_queries`` proposals become the one-to-one queries, the next
    ``one2many.num_queries`` the one-to-many queries.

    Args:
        mixed_selection (bool): Whether queries have learned contents, one
            for each rank, and only their position comes from the proposals
            (mixed query selection). Defaults to False.
        one2many (dict, optional): Settings of the one-to-many group, see
            :class:`OneToMany`. None, no queries or no copies disable it, as
            in the authors' code. Defaults to None.
        *args, **kwargs: As in :class:`BaseDeformableDETR`.

    Raises:
        UserError: If ``mixed_selection`` is set without ``as_two_stage``.
    """

    def __init__(
        self,
        *args: Any,
        bbox_head: dict,
        mixed_selection: bool = False,
        one2many: dict | None = None,
        **kwargs: Any,
    ) -> None:
        group = OneToMany.read(one2many)
        self.mixed_selection = mixed_selection
        self.num_one2many_queries = group.num_queries
        if mixed_selection and not kwargs.get('as_two_stage', False):
            raise UserError(
                'mixed_selection=True needs as_two_stage=True: it mixes '
                "learned contents with the first stage's positions"
            )
        bbox_head = {**bbox_head, 'one2many': vars(group)}
        super().__init__(*args, bbox_head=bbox_head, **kwargs)

    @property
    def num_total_queries(self) -> int:
        """int: Queries in training, both groups together."""
        return self.num_queries + self.num_one2many_queries

    def _init_first_stage(self) -> None:
        """Initialize the first stage and, if learned, the contents."""
        super()._init_first_stage()
        if self.mixed_selection:
            self.query_embedding = nn.Embedding(
                self.num_total_queries, self.embed_dims
            )

    def embed_proposals(
        self, references_unact: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Position from the proposal, content by rank if selection is mixed.

        Arguments and results are those of :class:`BaseDeformableDETR`.
        """
        query, query_pos = super().embed_proposals(references_unact, features)
        if self.mixed_selection:
            batch_size, num_queries = query.shape[:2]
            contents = self.query_embedding.weight[:num_queries]
            query = contents.expand(batch_size, -1, -1)
        return query, query_pos

    def query_groups(self, num_queries: int) -> QueryGroups:
        """One-to-one and one-to-many queries, each attending to itself only.

        Args:
            num_queries (int): Number of queries of this batch.
        """
        num_one2one = min(self.num_queries, num_queries)
        groups = [QueryGroup('one2one', num_one2one)]
        if self.training and self.num_one2many_queries:
            # Even if a small input leaves it empty: all ranks must have the
            # same losses.
            num_one2many = num_queries - num_one2one
            groups.append(QueryGroup('one2many', num_one2many))
        return QueryGroups(groups)
