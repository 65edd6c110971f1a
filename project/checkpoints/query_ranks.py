# Copyright (c) mmdetr authors. All rights reserved.
"""Fewer queries for detectors whose queries are ranks.

A two-stage detector that learns the contents of its queries has one content
for the best proposal, one for the second best, and so on; Rank-DETR has more
tables of this kind. With fewer queries the first rows of each are kept. Rows
of H-DETR's one-to-many queries, which follow, are kept as they are.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from project.utils.errors import UserError

_TABLE = re.compile(
    r'(.*\.)?(query_embedding|rank_aware_content_query\.\d+'
    r'|rank_adaptive_classhead_emb\.\d+)\.weight'
)
_FIRST_STAGE = 'memory_trans_fc.weight'
_IN_THE_CONFIG = (
    'no weight depends on their number: set model.num_queries in the config '
    'and leave the checkpoint as it is'
)


def with_first_queries(
    weights: Mapping[str, Tensor], num_queries: int, num_one2many: int
) -> tuple[dict[str, Tensor], int]:
    """Keep the first ranks of all tables of queries.

    Args:
        weights: Weights under this project's names.
        num_queries: How many ranks to keep.
        num_one2many: Rows of one-to-many queries at the end of each table.

    Returns:
        tuple[dict[str, Tensor], int]: The weights, and how many queries they
        had.

    Raises:
        UserError: If queries have no order, no weight depends on their
            number, or there are fewer than ``num_queries``.
    """
    if _FIRST_STAGE not in weights:
        raise UserError(
            'its queries are learned one by one, without a first stage that '
            'ranks them, and none can be left out'
        )
    tables = {k: v for k, v in weights.items() if _TABLE.fullmatch(k)}
    if not tables:
        raise UserError(
            f'its queries come from the image alone, and {_IN_THE_CONFIG}'
        )
    before = min(map(len, tables.values())) - num_one2many
    if not 0 < num_queries <= before:
        raise UserError(
            f'num_queries={num_queries}, but there are learned ranks for '
            f'{before} queries; expected 1 to {before}'
        )
    kept = {
        name: torch.cat([table[:num_queries], table[before:]])
        for name, table in tables.items()
    }
    return {**weights, **kept}, before
