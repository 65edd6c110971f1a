# Copyright (c) mmdetr authors. All rights reserved.
"""Outputs of the stages of a detector."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from project.utils.errors import UserError

from .transformer.query_groups import QueryGroups


@dataclass(frozen=True)
class FirstStageOutput:
    """The selected proposals and the predictions that are trained.

    A method whose first stage has further outputs extends this class.

    Args:
        references_unact (Tensor): Logits of the selected boxes
            (cx, cy, w, h), without gradient, best first, has shape
            (bs, num_queries, 4).
        features (Tensor): Features for the contents of the queries, by
            default the projected memory at the selected points, has shape
            (bs, num_queries, dim).
        cls_scores (Tensor, optional): Logits for the loss, has shape
            (bs, num_points, num_classes). None in evaluation.
        bbox_preds (Tensor, optional): Boxes (cx, cy, w, h) in [0, 1] for the
            loss, has shape (bs, num_points, 4). None in evaluation.
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
            (1, 1, 1, 1) at invalid points, has the shape of ``bbox_preds``.
            None in evaluation.
    """

    anchors: Tensor | None = None


@dataclass(frozen=True)
class DenseFirstStageOutput(FirstStageOutput):
    """First stage that also selects dense queries (DDQ).

    Args:
        dense (FirstStageOutput, optional): The dense queries, in training.
    """

    dense: FirstStageOutput | None = None


@dataclass(frozen=True)
class DecoderOutput:
    """Outputs of all decoder layers.

    Args:
        hidden_states (Tensor): Queries after each layer, has shape
            (num_decoder_layers, bs, num_queries, dim).
        references (list[Tensor]): References before each layer in [0, 1],
            (cx, cy) or (cx, cy, w, h), each has shape
            (bs, num_queries, 2 or 4); may end with those after the last
            layer.
        layer_groups (tuple[QueryGroups | None]): Groups of the queries in
            each layer. None where all queries attend to each other.
        box_deltas (tuple[Tensor]): Output of each layer's box branch, if the
            decoder has computed it.
        auxiliary (tuple[Tensor]): Auxiliary outputs of the layers, in
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

    def first_layers(self, number: int) -> 'DecoderOutput':
        """Return the outputs of a decoder that ends earlier.

        Args:
            number (int): Number of layers, at least 1.

        Raises:
            UserError: If the decoder has fewer.
        """
        if number > len(self.hidden_states):
            raise UserError(
                f'model.test_cfg.num_decoder_layers={number}, but the decoder '
                f'has {len(self.hidden_states)} layers.'
            )
        return replace(
            self,
            hidden_states=self.hidden_states[:number],
            references=self.references[: number + 1],
            layer_groups=self.layer_groups[:number],
            box_deltas=self.box_deltas[:number],
            auxiliary=tuple(x[:number] for x in self.auxiliary),
        )


@dataclass(frozen=True)
class AuxiliaryBranch:
    """An auxiliary output of the decoder, and how it is trained.

    Args:
        prefix (str): Prefix of the names of its losses.
        head (nn.Module): Its head, a ``SetPredictionHead``.
        decoder_output (DecoderOutput): The auxiliary queries, with the
            references and groups of the main ones.
        loss_weight (float): Weight of all its losses.
    """

    prefix: str
    head: nn.Module
    decoder_output: DecoderOutput
    loss_weight: float
