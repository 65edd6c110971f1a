"""DETA and its baseline: the authors' repository and detrex's project.

detrex, too, was run with the padding of the batch.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from tests.helpers.configs import CONFIGS
from tests.helpers.golden_runs import run_stages

from . import h_detr
from .anchor_detr import detections
from .defaults import evaluated_images, loss_kinds, output_sizes
from .h_detr import loss_name
from .match import Match

if TYPE_CHECKING:
    from ..goldens import Golden

__all__ = ['evaluated_images', 'loss_kinds', 'loss_name', 'output_sizes']

SHIPPED = {
    'deta': 'deta_r50_5scale_8xb2-12e_coco.py',
    'deta_2x': 'deta_r50_5scale_8xb2-24e_coco.py',
    'deta_swin_ft': 'deta_swin-l_5scale_16xb1-24e_coco.py',
    'improved_baseline': 'deta_r50_improved-baseline_8xb2-50e_coco.py',
    'deta_r50_5scale_12ep': 'deta_r50_5scale_8xb2-12e_coco-detrex.py',
    'deta_r50_5scale_12ep_bs8': 'deta_r50_5scale_8xb1-12e_coco.py',
    'deta_r50_5scale_no_frozen_backbone': (
        'deta_r50_5scale_no-frozen-backbone_8xb2-12e_coco.py'
    ),
    'deta_swin_large_finetune_24ep': 'deta_swin-l_5scale_16xb1-24e_coco.py',
    'improved_deformable_detr_baseline_50ep': (
        'deta_r50_improved-baseline_8xb2-50e_coco.py'
    ),
}
"""By the name of the source's config, of both repositories."""
IMPLIED: dict = {}
WORDS = dict(
    feature_levels='num_feature_levels',
    hidden='hidden_dim',
    encoder_layers='enc_layers',
    decoder_layers='dec_layers',
    heads='nheads',
    ffn='dim_feedforward',
)
"""Its words for what the H-DETR repositories say otherwise."""


def recognises(meta: dict) -> bool:
    return meta['source']['repository'] == 'jozhang97/DETA' or any(
        'projects/deta' in file for file in meta['source']['files']
    )


def run(
    golden: 'Golden', model: nn.Module, images: list[int]
) -> tuple[dict[str, Tensor], dict]:
    """Results under the names of the source; of evaluation, detections."""
    results, head_inputs = run_stages(
        model, golden.image(images), golden.samples(images)
    )
    results.update(
        topk=results['topk_indices'],
        enc_objectness=results['enc_logits'][..., 0],
        query_content=results['query'],
        hidden=results['hs'],
        references=results['inter_references'],
    )
    if results['memory_mask'] is not None:
        results['memory.where'] = ~results['memory_mask']
    for level in range(model.num_feature_levels):
        results[f'feat{level}'] = results[f'neck{level}']
    if not model.training:
        results.update(
            detections(
                golden, model, results['logits'][-1], results['boxes'][-1]
            )
        )
    return results, head_inputs


def matches(
    meta: dict, arrays: dict[str, np.ndarray], kind: str
) -> Iterator[Match]:
    """``train.stg2.img0``, shared by all layers, or ``train.match.layer0``."""
    num_layers = meta['model'].get('decoder_layers', 6)
    for name in arrays:
        found = re.fullmatch(
            r'(train\.(?:match\.)?(\w+)\.img(\d+))\.query', name
        )
        if not found:
            continue
        stem, place, image = found.groups()
        prefix = 'enc_' if place in ('stg1', 'enc') else ''
        layers = [0] if prefix else range(num_layers)
        if place.startswith('layer'):
            layers = [int(place.removeprefix('layer'))]
        rows = (
            torch.from_numpy(arrays[f'{stem}.{column}']).long()
            for column in ('query', 'gt')
        )
        queries, gts = rows
        for layer in layers:
            yield Match(stem, prefix, layer, int(image), queries, gts)


def build_config(meta: dict) -> ConfigDict:
    """Set in a shipped config what the golden's ``model`` entry says."""
    entry = meta['model'].renamed(WORDS)
    shipped = SHIPPED[Path(entry['config']).stem]
    model = Config.fromfile(CONFIGS / 'deta' / shipped).model
    is_baseline = 'improved' in entry['config']
    if 'backbone' in entry:
        is_swin = model.backbone.type == 'SwinTransformer'
        expected = 'Swin-L' if is_swin else f'ResNet-{model.backbone.depth}'
        assert entry['backbone'].startswith(expected)
    model.num_queries = entry['queries']
    model.bbox_head.num_classes = entry['classes']
    if 'inverse_sigmoid_eps' in entry:
        model.inverse_sigmoid_eps = entry['inverse_sigmoid_eps']
    if not entry.get('assign_first_stage', not is_baseline):
        model.proposal_selector = None
        model.train_cfg.first_stage_assigner = None
    if not entry.get('assign_second_stage', not is_baseline):
        model.train_cfg.second_stage_assigner = None
        model.test_cfg.nms = None
    model.test_cfg.clip_bboxes = False
    model.backbone.init_cfg = None
    if 'drop_path_rate' in model.backbone:
        model.backbone.update(drop_path_rate=0.0, with_cp=False)
    if 'hidden_dim' in entry:
        h_detr.set_transformer(model, entry)
        model.as_two_stage = entry['two_stage']
        model.with_box_refine = entry['box_refine']
    h_detr.set_levels(model, entry)
    h_detr.set_loss_weights(model, meta['losses'])
    return model
