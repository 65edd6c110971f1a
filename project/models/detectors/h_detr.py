# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from project.utils.errors import UserError, check_number

from ..layers.transformer.query_groups import QueryGroup, QueryGroups
from .base_deformable_detr import BaseDeformableDETR


@MODELS.register_module()
class HDETR(BaseDeformableDETR):
    """Deformable DETR with hybrid matching, H-Deformable-DETR.

    Source: `DETRs with Hybrid Matching
    <https://arxiv.org/abs/2207.13080>`_, section 3.3 (hybrid branch).

    In training, a second group of queries is matched one-to-many: against
    every ground truth, repeated. Both groups share all weights and do not
    see each other; in evaluation the second group does not exist.

    The proposals' rank decides the group: the best ``num_queries`` are the
    one-to-one queries, the next ``one2many.num_queries`` the others.

    Args:
        mixed_selection (bool): Whether the queries' content is learned, one
            row for each rank, and only their position comes from the
            proposals (needs ``as_two_stage``). Defaults to False.
        one2many (dict, optional): The second group: ``num_queries`` (T in
            the paper), ``num_copies`` of each ground truth (K) and
            ``loss_weight`` (lambda, 1.0). None, no queries or no copies
            switch it off, as they do in the authors' code. Defaults to None.
        *args, **kwargs: As in :class:`BaseDeformableDETR`.

    Raises:
        UserError: If ``one2many`` holds something else, or mixed selection
            is asked for without a first stage.
    """

    def __init__(
        self,
        *args: Any,
        bbox_head: dict,
        mixed_selection: bool = False,
        one2many: dict | None = None,
        **kwargs: Any,
    ) -> None:
        one2many = checked_one2many(one2many)
        self.mixed_selection = mixed_selection
        self.num_one2many_queries = one2many.pop('num_queries')
        if mixed_selection and not kwargs.get('as_two_stage', False):
            raise UserError(
                'mixed_selection=True needs as_two_stage=True: it mixes '
                "learned contents with the first stage's positions"
            )
        bbox_head = {**bbox_head, 'one2many': one2many}
        super().__init__(*args, bbox_head=bbox_head, **kwargs)

    @property
    def num_total_queries(self) -> int:
        """int: Queries in training, both groups together."""
        return self.num_queries + self.num_one2many_queries

    def _init_first_stage(self) -> None:
        """Initialize the first stage, and contents if they are learned."""
        super()._init_first_stage()
        if self.mixed_selection:
            self.query_embedding = nn.Embedding(
                self.num_total_queries, self.embed_dims
            )

    def embed_proposals(
        self, references_unact: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Position from the proposal, content from the rank if mixed.

        Arguments and results are those of :class:`BaseDeformableDETR`.
        """
        query, query_pos = super().embed_proposals(references_unact, features)
        if self.mixed_selection:
            batch_size, num_queries = query.shape[:2]
            contents = self.query_embedding.weight[:num_queries]
            query = contents.expand(batch_size, -1, -1)
        return query, query_pos

    def query_groups(self, num_queries: int) -> QueryGroups:
        """One-to-one and one-to-many queries, which do not see each other.

        Args:
            num_queries (int): How many queries there are this time.
        """
        num_one2one = min(self.num_queries, num_queries)
        groups = [QueryGroup('one2one', num_one2one)]
        if self.training and self.num_one2many_queries:
            # Also where a small input leaves no queries to it: ranks with
            # other inputs have its losses, and all must have the same.
            num_one2many = num_queries - num_one2one
            groups.append(QueryGroup('one2many', num_one2many))
        return QueryGroups(groups)


def checked_one2many(one2many: dict | None) -> dict:
    """Fill in the defaults of the second group and check what is given.

    Args:
        one2many (dict, optional): As in :class:`HDETR`.

    Returns:
        dict: ``num_queries``, ``num_copies`` and ``loss_weight``.

    Raises:
        UserError: If a key is unknown or a number is none.
    """
    defaults = dict(num_queries=0, num_copies=0, loss_weight=1.0)
    settings = {**defaults, **(one2many or {})}
    unknown = sorted(settings.keys() - defaults.keys())
    if unknown:
        raise UserError(
            f'model.one2many has the unknown key {unknown[0]!r}; it takes '
            f'{", ".join(defaults)}'
        )
    for key in ('num_queries', 'num_copies'):
        if not isinstance(settings[key], int) or settings[key] < 0:
            raise UserError(
                f'model.one2many.{key}={settings[key]!r} should be a whole '
                'number, 0 or more'
            )
    check_number('model.one2many.loss_weight', settings['loss_weight'], low=0)
    if not settings['num_copies']:
        settings['num_queries'] = 0
    return settings
