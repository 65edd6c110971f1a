# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence

from mmdet.models.detectors import DeformableDETR
from mmengine.model import ModuleList

from project.utils.errors import UserError

from ..layers.stage_outputs import AuxiliaryBranch, DecoderOutput


class AuxiliaryHeadsMixin(DeformableDETR):
    """Detector with one more head for each auxiliary output of its decoder.

    These heads have the architecture and the losses of the main one.
    """

    auxiliary_prefix = 'aux_{}_'
    """Prefix of the loss names of an auxiliary output."""
    learned_queries_are_points = True
    """Whether references are points if there is no first stage."""

    def _init_auxiliary_heads(self, aux_weights: Sequence[float]) -> None:
        """Build a head for each auxiliary output of the decoder."""
        expected = self.decoder.num_auxiliary
        if len(aux_weights) != expected:
            raise UserError(
                f'model.aux_weights={list(aux_weights)} should have one '
                'weight for each auxiliary result of a decoder layer, '
                f'{expected} with this model.decoder'
            )
        are_points = self.learned_queries_are_points and not self.as_two_stage
        if aux_weights and are_points:
            raise UserError(
                "model.decoder's layers look at the regions of queries, which "
                'are points at first: they need as_two_stage=True, or '
                'anchors, as DN-Deformable-DETR has'
            )
        self.aux_weights = list(aux_weights)
        if aux_weights:
            self.bbox_head_aux = ModuleList(
                self.bbox_head.auxiliary_head(self.decoder.num_layers)
                for _ in aux_weights
            )

    def auxiliary_branches(
        self, decoder_output: DecoderOutput
    ) -> list[AuxiliaryBranch]:
        """Pair the auxiliary outputs with their heads.

        Args:
            decoder_output (DecoderOutput): Output of the decoder.

        Returns:
            list[AuxiliaryBranch]: One for each auxiliary output; empty in
            evaluation.
        """
        if not decoder_output.auxiliary:
            return []
        branches = zip(
            self.bbox_head_aux,
            decoder_output.auxiliary,
            self.aux_weights,
            strict=True,
        )
        return [
            AuxiliaryBranch(
                self.auxiliary_prefix.format(index),
                head,
                DecoderOutput(
                    hidden_states,
                    decoder_output.references,
                    decoder_output.layer_groups,
                ),
                weight,
            )
            for index, (head, hidden_states, weight) in enumerate(branches)
        ]
