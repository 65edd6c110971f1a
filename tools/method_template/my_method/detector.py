"""The detector: overrides the stages that the method changes."""

from typing import Any

from mmdet.registry import MODELS
from torch import Tensor, nn

from project.models.detectors import HDETR


@MODELS.register_module()
class MyMethod(HDETR):
    """What the method changes, in a line.

    Source: title, address and section of the paper.

    As an example, a learned vector is added to the content of every query.

    Args:
        content_scale (float): Factor of that vector. Defaults to 1.
        *args, **kwargs: As in :class:`HDETR`.
    """

    def __init__(
        self, *args: Any, content_scale: float = 1.0, **kwargs: Any
    ) -> None:
        self.content_scale = content_scale
        super().__init__(*args, **kwargs)

    def _init_first_stage(self) -> None:
        """Add what the first stage learns besides."""
        super()._init_first_stage()
        self.common_content = nn.Embedding(1, self.embed_dims)

    def embed_proposals(
        self, references_unact: Tensor, features: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Make the queries of the selected proposals.

        Args:
            references_unact (Tensor): Logits of boxes (cx, cy, w, h), has
                shape (bs, num_queries, 4).
            features (Tensor): Projected memory at the proposals, has shape
                (bs, num_queries, dim).

        Returns:
            tuple[Tensor, Tensor | None]: ``query`` and ``query_pos``, each
            has shape (bs, num_queries, dim).
        """
        query, query_pos = super().embed_proposals(references_unact, features)
        common = self.common_content.weight
        return query + self.content_scale * common, query_pos
