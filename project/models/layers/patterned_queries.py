# Copyright (c) mmdetr authors. All rights reserved.
from torch import Tensor


def patterned_queries(
    content: Tensor, anchors: Tensor, patterns: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Combine every pattern with every anchor (Anchor DETR, section 3.2).

    Args:
        content (Tensor): Content shared by all queries, has shape (dim, ).
        anchors (Tensor): Has shape (num_anchors, 4).
        patterns (Tensor, optional): Added to the content, has shape
            (num_patterns, dim). Defaults to a single one of zeros.

    Returns:
        tuple[Tensor, Tensor]: Contents, has shape (num_queries, dim), and
        anchors, has shape (num_queries, 4), pattern by pattern.
    """
    if patterns is None:
        return content.expand(len(anchors), -1), anchors
    contents = (content + patterns).repeat_interleave(len(anchors), dim=0)
    return contents, anchors.repeat(len(patterns), 1)
