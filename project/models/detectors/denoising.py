# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor, nn

from ..layers.denoising_queries import DenoisingQueries
from ..layers.dn_query_generator import DNQueryGenerator
from ..layers.patterned_queries import patterned_queries
from ..layers.transformer.deformable_attention import LevelShapes
from ..layers.transformer.query_groups import QueryGroups
from ..utils.box_ops import normalize_boxes
from ..utils.labels import gather_labels


class DenoisingMixin(DetectionTransformer):
    """Detector that is also trained to denoise noised ground truths.

    A mixin for mmdet's and this package's DETRs. ``pre_decoder`` gets the
    data samples, as in mmdet's DINO. ``matched_queries`` returns the learned
    queries; a detector that selects its queries in the image overrides
    :meth:`pre_decoder`.
    """

    dn_query_generator: DNQueryGenerator
    dn_generator_class = DNQueryGenerator

    def _init_denoising(self, dn_cfg: dict | None) -> None:
        """Build the query generator for the classes of the head."""
        self.dn_query_generator = self.dn_generator_class(
            self.bbox_head.num_classes, self.embed_dims, **(dn_cfg or {})
        )

    def forward_transformer(
        self,
        img_feats: tuple[Tensor, ...],
        batch_data_samples: OptSampleList = None,
    ) -> dict:
        """Run the four stages of mmdet's DETRs.

        Args:
            img_feats (tuple[Tensor]): Features of the neck, each has shape
                (bs, dim, h_lvl, w_lvl).
            batch_data_samples (list[:obj:`DetDataSample`], optional): Image
                sizes and, in training, ground truth.

        Returns:
            dict: Keyword arguments of the head.
        """
        encoder_inputs, decoder_inputs = self.pre_transformer(
            img_feats, batch_data_samples
        )
        encoder_outputs = self.forward_encoder(**encoder_inputs)
        queries, head_inputs = self.pre_decoder(
            **encoder_outputs, batch_data_samples=batch_data_samples
        )
        decoder_inputs.update(queries)
        head_inputs.update(self.forward_decoder(**decoder_inputs))
        return head_inputs

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Tensor | None = None,
        level_shapes: LevelShapes = (),
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Prepend, in training, the denoising queries to the matched ones.

        Arguments and results are those of :class:`BaseDeformableDETR`; in
        training the head also gets ``denoising``.
        """
        contents, anchors = self.matched_queries()
        query, references = (
            tensor.expand(memory.shape[0], -1, -1)
            for tensor in (contents, anchors)
        )
        groups, head_inputs = None, dict()
        if self.training:
            query, references, groups, head_inputs['denoising'] = (
                self._with_denoising(query, references, batch_data_samples)
            )
        decoder_inputs = dict(
            query=query,
            memory=memory,
            reference_points=references.sigmoid(),
            query_groups=groups,
        )
        return decoder_inputs, head_inputs

    def _with_denoising(
        self,
        query: Tensor,
        references_unact: Tensor,
        batch_data_samples: SampleList,
    ) -> tuple[Tensor, Tensor, QueryGroups, DenoisingQueries]:
        """Prepend noised ground truths to queries and references."""
        instances = [sample.gt_instances for sample in batch_data_samples]
        # The matching checks these labels on a device, where it waits anyway.
        labels, _ = gather_labels(
            instances,
            [sample.metainfo for sample in batch_data_samples],
            self.bbox_head.num_classes,
        )
        bboxes, _ = normalize_boxes(
            [gt.bboxes for gt in instances],
            [sample.img_shape for sample in batch_data_samples],
            references_unact,
        )
        noised = self.dn_query_generator(
            labels, bboxes, [len(gt) for gt in instances]
        )
        return (
            torch.cat([noised.query, query], 1),
            torch.cat([noised.references_unact, references_unact], 1),
            noised.query_groups(query.shape[1]),
            noised,
        )


class DABDenoisingMixin(DenoisingMixin):
    """Denoising detector with DAB-DETR's queries and its dense decoder.

    Matched queries are learned anchors whose content is the embedding of "no
    object", plus a learned pattern if ``num_patterns`` is not 0.
    """

    decoder_key_padding_mask = True
    """Whether the decoder masks padding."""

    def _init_learned_queries(self) -> None:
        """Initialize anchors, patterns and the denoising queries."""
        self.query_embedding = nn.Embedding(self.num_queries, 4)
        self.patterns = None
        if self.num_patterns:
            self.patterns = nn.Embedding(self.num_patterns, self.embed_dims)
        self._init_denoising(self.dn_cfg)

    def matched_queries(self) -> tuple[Tensor, Tensor]:
        """Contents and anchors of the matched queries.

        Returns:
            tuple[Tensor, Tensor]: Contents, has shape (num_queries, dim), and
            logits of boxes (cx, cy, w, h), has shape (num_queries, 4).
        """
        return patterned_queries(
            self.dn_query_generator.no_object_content(),
            self.query_embedding.weight,
            None if self.patterns is None else self.patterns.weight,
        )

    def forward_decoder(
        self,
        query: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        memory_pos: Tensor,
        **kwargs: Any,
    ) -> dict:
        """Decode the queries.

        Args:
            query (Tensor): Contents, has shape (bs, num_queries, dim).
            memory (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            memory_mask (Tensor, optional): True where padded, has shape
                (bs, num_feat_points).
            memory_pos (Tensor): Their positional encoding, has the shape of
                ``memory``.
            **kwargs: Initial references and groups of the queries, and
                further arguments of the decoder's layers.

        Returns:
            dict: Keyword arguments of the head: ``decoder_output``.
        """
        if not self.decoder_key_padding_mask:
            memory_mask = None
        decoder_output = self.decoder(
            query,
            memory,
            key_pos=memory_pos,
            key_padding_mask=memory_mask,
            reg_branch=self.bbox_head.fc_reg,
            **kwargs,
        )
        return dict(decoder_output=decoder_output)
