"""Anchor DETR: detrex's project."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from tests.helpers.configs import CONFIGS

from . import h_detr
from .defaults import evaluated_images, loss_kinds, output_sizes
from .h_detr import loss_name
from .match import Match

if TYPE_CHECKING:
    from ..goldens import Golden

__all__ = ['evaluated_images', 'loss_kinds', 'loss_name', 'output_sizes']

IMPLIED = {'attention': ('RCDA',)}
SHIPPED = 'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py'


def recognises(meta: dict) -> bool:
    return any('anchor_detr' in file for file in meta['source']['files'])


def run(
    golden: 'Golden', model: nn.Module, images: list[int]
) -> tuple[dict[str, Tensor], dict]:
    """Results under the goldens' names, detections among them."""
    samples = golden.samples(images)
    feats = model.extract_feat(golden.image(images))
    encoder_inputs, decoder_inputs = model.pre_transformer(feats, samples)
    encoder_outputs = model.forward_encoder(**encoder_inputs)
    queries, head_inputs = model.pre_decoder(**encoder_outputs)
    head_inputs.update(model.forward_decoder(**decoder_inputs, **queries))
    cls_scores, boxes = model.bbox_head(**head_inputs)
    results = dict(
        feat=feats[0],
        memory=encoder_outputs['memory'].permute(0, 3, 1, 2),
        hidden=head_inputs['decoder_output'].hidden_states,
        logits=cls_scores,
        boxes=boxes,
    )
    if not model.training and 'out.det_sizes' in golden.arrays:
        results.update(detections(golden, model, cls_scores[-1], boxes[-1]))
    return results, head_inputs


def detections(
    golden: 'Golden', model: nn.Module, cls_scores: Tensor, boxes: Tensor
) -> dict[str, Tensor]:
    """Detections of each image, scaled to the size that the golden says.

    By default they are of the network's input.
    """
    shapes = golden.meta['input']['img_shapes']
    sizes = golden.arrays.get('out.det_sizes', np.array(shapes))
    metas = [
        dict(img_shape=(height, width), scale_factor=(1.0, 1.0))
        for height, width in sizes.tolist()
    ]
    results = dict(det_sizes=torch.from_numpy(sizes))
    found = model.bbox_head.predict_by_feat(cls_scores, boxes, metas)
    for i, instances in enumerate(found):
        results[f'det{i}.scores'] = instances.scores
        results[f'det{i}.labels'] = instances.labels
        results[f'det{i}.boxes'] = instances.bboxes
    return results


def matches(
    meta: dict, arrays: dict[str, np.ndarray], kind: str
) -> Iterator[Match]:
    """``train.match.layer3.img0.query`` and ``.gt``."""
    for name, array in arrays.items():
        found = re.fullmatch(r'train\.match\.layer(\d+)\.img(\d+)\.gt', name)
        if found:
            layer, image = map(int, found.groups())
            queries = arrays[name.removesuffix('gt') + 'query']
            rows = (torch.from_numpy(x).long() for x in (queries, array))
            yield Match(name, '', layer, image, *rows)


def build_config(meta: dict) -> ConfigDict:
    """Set in a shipped config what the golden's ``model`` entry says."""
    entry = meta['model']
    model = Config.fromfile(CONFIGS / SHIPPED).model
    patterns, points = map(int, re.findall(r'\d+', entry['queries']))
    model.num_patterns = patterns
    model.num_queries = patterns * points
    model.bbox_head.num_classes = entry['classes']
    model.test_cfg.clip_bboxes = False  # done after what the goldens keep
    model.backbone.init_cfg = None
    model.backbone.depth = int(re.match(r'resnet(\d+)', entry['backbone'])[1])
    if 'DC5' in entry['backbone'] or 'stride 16' in entry['backbone']:
        model.backbone.type = 'DC5ResNet'
    set_transformer(model, entry)
    h_detr.set_loss_weights(model, meta['losses'])
    return model


def set_transformer(model: ConfigDict, entry: dict) -> None:
    """Widths and depths."""
    dims, dropout = entry['hidden'], entry['dropout']
    attention = dict(
        embed_dims=dims, num_heads=entry['heads'], dropout=dropout
    )
    ffn = dict(
        embed_dims=dims, feedforward_channels=entry['ffn'], ffn_drop=dropout
    )
    model.encoder.num_layers = entry['encoder_layers']
    model.decoder.num_layers = entry['decoder_layers']
    model.encoder.layer_cfg.update(self_attn_cfg=attention, ffn_cfg=ffn)
    model.decoder.layer_cfg.update(
        self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn
    )
    model.neck.out_channels = dims
    model.bbox_head.embed_dims = dims
