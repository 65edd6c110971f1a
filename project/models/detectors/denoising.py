# Copyright (c) mmdetr authors. All rights reserved.
from inspect import signature

import torch
from mmdet.structures import OptSampleList, SampleList
from torch import Tensor

from project.utils.errors import check_keys

from ..layers.denoising import DenoisingQueries, DNQueryGenerator
from ..utils.box_ops import normalize_boxes


class DenoisingMixin:
    """Detector that also gets noised ground truths as queries in training.

    To be put before mmdet's or this package's DETR. ``pre_decoder`` gets the
    data samples, as in mmdet's DINO, and calls :meth:`join_queries`.
    """

    dn_query_generator: DNQueryGenerator
    dn_generator_class = DNQueryGenerator

    def _init_denoising(self, dn_cfg: dict | None) -> None:
        """Build the generator, for the classes of the head."""
        known = list(signature(self.dn_generator_class).parameters)[2:]
        check_keys('model.dn_cfg', dn_cfg or {}, known)
        self.dn_query_generator = self.dn_generator_class(
            num_classes=self.bbox_head.num_classes,
            embed_dims=self.embed_dims,
            **(dn_cfg or {}),
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
            batch_data_samples (list[:obj:`DetDataSample`], optional): Size,
                and in training ground truth, of each image.

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

    def join_queries(
        self,
        contents: Tensor,
        anchors: Tensor,
        memory: Tensor,
        batch_data_samples: OptSampleList,
    ) -> tuple[dict, dict]:
        """Put the denoising queries before the matched ones, in training.

        Args:
            contents (Tensor): Contents of the matched queries, has shape
                (num_queries, dim).
            anchors (Tensor): Their boxes (cx, cy, w, h) as log-odds, has
                shape (num_queries, 4).
            memory (Tensor): Encoded features, has shape
                (bs, num_feat_points, dim).
            batch_data_samples (list[:obj:`DetDataSample`]): Ground truth.

        Returns:
            tuple[dict, dict]: For the decoder ``query`` of shape
            (bs, num_queries, dim), ``reference_points`` in [0, 1] of shape
            (bs, num_queries, 4) and ``query_groups``; for the loss
            ``denoising``.
        """
        query, references = (
            tensor.expand(len(memory), -1, -1)
            for tensor in (contents, anchors)
        )
        groups, head_inputs = None, dict()
        if self.training:
            denoising = self._denoising_queries(batch_data_samples, anchors)
            query = torch.cat([denoising.query, query], 1)
            references = torch.cat([denoising.references_unact, references], 1)
            groups = denoising.query_groups(len(contents))
            head_inputs['denoising'] = denoising
        decoder_inputs = dict(
            query=query,
            reference_points=references.sigmoid(),
            query_groups=groups,
        )
        return decoder_inputs, head_inputs

    def _denoising_queries(
        self, batch_data_samples: SampleList, like: Tensor
    ) -> DenoisingQueries:
        """Noise the ground truths; ``like`` gives device and precision."""
        instances = [sample.gt_instances for sample in batch_data_samples]
        bboxes, _ = normalize_boxes(
            [gt.bboxes for gt in instances],
            [sample.img_shape for sample in batch_data_samples],
            like,
        )
        return self.dn_query_generator(
            torch.cat([gt.labels for gt in instances]),
            bboxes,
            [len(gt) for gt in instances],
        )
