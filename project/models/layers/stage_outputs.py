# Copyright (c) mmdetr authors. All rights reserved.
"""What the stages of a detector hand to each other and to the head."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from .transformer.query_groups import QueryGroups


@dataclass(frozen=True)
class FirstStageOutput:
    """The proposals that become queries, and what the first stage learns by.

    A method whose first stage gives more extends this class.

    Args:
        references_unact (Tensor): Logits of the chosen boxes (cx, cy, w, h),
            without gradient, best first, has shape (bs, num_queries, 4).
        features (Tensor): What the contents of the queries are made of, by
            default the transformed memory at the chosen points, has shape
            (bs, num_queries, dim).
        cls_scores (Tensor, optional): Logits that are trained, has shape
            (bs, num_points, num_classes). None in evaluation.
        bbox_preds (Tensor, optional): Boxes (cx, cy, w, h) in [0, 1] that
            are trained, has shape (bs, num_points, 4). None in evaluation.
    """

    references_unact: Tensor
    features: Tensor
    cls_scores: Tensor | None = None
    bbox_preds: Tensor | None = None


@dataclass(frozen=True)
class AnchoredFirstStageOutput(FirstStageOutput):
    """First stage whose proposals are assigned by their anchors (DETA).

    Args:
        anchors (Tensor, optional): Anchors (cx, cy, w, h) in [0, 1],
            (1, 1, 1, 1) where there is none, has the shape of ``bbox_preds``.
            None in evaluation.
    """

    anchors: Tensor | None = None


@dataclass(frozen=True)
class DenseFirstStageOutput(FirstStageOutput):
    """First stage that also chooses dense queries (DDQ).

    Args:
        dense (FirstStageOutput, optional): The dense queries, in training.
    """

    dense: FirstStageOutput | None = None


@dataclass(frozen=True)
class DecoderOutput:
    """Results of all decoder layers.

    Args:
        hidden_states (Tensor): Queries after each layer, has shape
            (num_decoder_layers, bs, num_queries, dim).
        references (list[Tensor]): References before each layer in [0, 1],
            (cx, cy) or (cx, cy, w, h), each has shape
            (bs, num_queries, 2 or 4); a last one after all layers may follow.
        layer_groups (tuple[QueryGroups | None]): Groups of the queries in
            each layer. None where all queries see each other.
        box_deltas (tuple[Tensor]): What the box head of each layer makes of
            ``hidden_states``, where the decoder has computed it; the head
            does otherwise.
        auxiliary (tuple[Tensor]): Auxiliary results of the layers, in
            training, each has the shape of ``hidden_states``.
    """

    hidden_states: Tensor
    references: list[Tensor]
    layer_groups: tuple[QueryGroups | None, ...] = (None,)
    box_deltas: tuple[Tensor, ...] = ()
    auxiliary: tuple[Tensor, ...] = ()

    @property
    def query_groups(self) -> QueryGroups | None:
        """QueryGroups: Groups of the queries in the first layer."""
        return self.layer_groups[0]

    def layers(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield queries, reference before and box deltas of each layer."""
        deltas = self.box_deltas or (None,) * len(self.hidden_states)
        references = self.references[: len(self.hidden_states)]
        yield from zip(self.hidden_states, references, deltas, strict=True)


@dataclass(frozen=True)
class AuxiliaryBranch:
    """An auxiliary result of the decoder, and how it is trained.

    Args:
        prefix (str): Put before the names of its losses.
        head (nn.Module): Its head, a ``SetPredictionHead``.
        decoder_output (DecoderOutput): The auxiliary queries, with the
            references and groups of the decoder's.
        loss_weight (float): Multiplies all its losses.
    """

    prefix: str
    head: nn.Module
    decoder_output: DecoderOutput
    loss_weight: float
