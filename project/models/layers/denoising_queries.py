# Copyright (c) mmdetr authors. All rights reserved.
"""Denoising queries, made of noised ground truths in training."""

from dataclasses import dataclass

from torch import Tensor

from .transformer.query_groups import QueryGroup, QueryGroups


@dataclass
class DenoisingQueries:
    """Noised ground truths as queries, padded to the same number per image.

    Every group is as large as the image with the most objects needs; images
    with fewer are padded with fillers, which are zeros.

    Args:
        query (Tensor): Contents, has shape (bs, num_queries, dim).
        references_unact (Tensor): Logits of boxes (cx, cy, w, h), has shape
            (bs, num_queries, 4).
        is_filler (Tensor): True for fillers, has shape (bs, num_queries).
        num_groups (int): Number of groups.
        group_size (int): Queries of a group, fillers included.
        image (Tensor): Image of each query that reconstructs a ground truth,
            has shape (num_groups * num_gts, ).
        place (Tensor): Its index among the queries of the image, has the
            same shape.
        target (Tensor): Its index among the ground truths of the batch, has
            the same shape.
    """

    query: Tensor
    references_unact: Tensor
    is_filler: Tensor
    num_groups: int
    group_size: int
    image: Tensor
    place: Tensor
    target: Tensor

    @property
    def num_queries(self) -> int:
        """int: Denoising queries of an image, fillers included."""
        return self.num_groups * self.group_size

    def query_groups(self, num_matching: int) -> QueryGroups:
        """Groups of these queries and of the matched ones after them.

        A denoising group attends to itself and to the matched queries. These
        attend only to themselves, or noised ground truths would leak.

        Args:
            num_matching (int): Number of matched queries.

        Returns:
            QueryGroups: ``'dn0'``, ``'dn1'``, ... and ``'matching'``.
        """
        groups = [
            QueryGroup(f'dn{i}', self.group_size, sees=('matching',))
            for i in range(self.num_groups)
        ]
        return QueryGroups([*groups, QueryGroup('matching', num_matching)])
