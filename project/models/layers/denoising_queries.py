# Copyright (c) mmdetr authors. All rights reserved.
"""Queries made of noised ground truths, for training alone."""

from dataclasses import dataclass

from torch import Tensor

from .transformer.query_groups import QueryGroup, QueryGroups


@dataclass
class DenoisingQueries:
    """Noised ground truths, laid out as queries of every image.

    Every group has as many places as the image with most objects needs; in
    the others the rest are fillers, zeros that stand for nothing.

    Args:
        query (Tensor): Contents, has shape (bs, num_queries, dim).
        references_unact (Tensor): Log-odds of boxes (cx, cy, w, h), has shape
            (bs, num_queries, 4).
        is_filler (Tensor): Which queries stand for nothing, has shape
            (bs, num_queries).
        num_groups (int): Groups of queries.
        group_size (int): Queries of a group, fillers included.
        image (Tensor): Image of each query that has a ground truth to give
            back, has shape (num_groups * num_gts, ).
        place (Tensor): Its place among the image's queries, likewise.
        target (Tensor): Its ground truth among those of all images, likewise.
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
        """Groups of these queries and of the matched ones behind them.

        A denoising group sees itself and the matched queries. These see only
        themselves: a noised ground truth would give the answer away.

        Args:
            num_matching (int): How many queries are matched.

        Returns:
            QueryGroups: ``'dn0'``, ``'dn1'``, ... and ``'matching'``.
        """
        groups = [
            QueryGroup(f'dn{i}', self.group_size, sees=('matching',))
            for i in range(self.num_groups)
        ]
        return QueryGroups([*groups, QueryGroup('matching', num_matching)])
