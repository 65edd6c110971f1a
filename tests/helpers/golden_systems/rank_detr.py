"""Rank-DETR: the authors' repository, whose words are not detrex's."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from project.models.layers.transformer.rank_decoder import rank_order
from project.models.utils.gather import gather_points
from tests.helpers.configs import CONFIGS
from tests.helpers.golden_runs import MAX_ITERS

from . import h_detr
from .defaults import evaluated_images
from .h_detr import loss_name
from .match import Match

if TYPE_CHECKING:
    from ..goldens import Golden

__all__ = ['evaluated_images', 'loss_name']

IMPLIED: dict = {}
SHIPPED = {
    'ResNet-50,': 'rank-detr_r50_8xb2-12e_coco.py',
    'Swin-T': 'rank-detr_swin-t_8xb2-12e_coco.py',
    'Swin-L': 'rank-detr_swin-l_8xb2-12e_coco.py',
}
WORDS = dict(
    hidden='hidden_dim',
    heads='nheads',
    encoder_layers='enc_layers',
    decoder_layers='dec_layers',
    ffn='dim_feedforward',
    levels='num_feature_levels',
)
"""Its words for what the H-DETR repositories say otherwise."""


def recognises(meta: dict) -> bool:
    return meta['source']['repository'].startswith('LeapLabTHU/Rank-DETR')


def output_sizes(meta: dict) -> list[list[int]]:
    return meta['out_sizes']


def run(
    golden: 'Golden', model: nn.Module, images: list[int]
) -> tuple[dict[str, Tensor], dict]:
    """H-DETR's results, and the ranks after each layer.

    By the last of them the source sorts the last references, and uses
    neither.
    """
    results, head_inputs = h_detr.run(golden, model, images)
    num_queries = results['hs'].shape[2]
    groups = model.query_groups(num_queries)
    ranks = torch.stack(
        [
            rank_order(head(hidden_state).amax(-1), groups)
            for head, hidden_state in zip(
                model.bbox_head.cls_branches, results['hs'], strict=False
            )
        ]
    )
    if model.decoder.sort_queries:
        references = results['inter_references'].clone()
        references[-1] = gather_points(references[-1], ranks[-1])
        results['inter_references'] = references
    results['rank_indices'] = ranks
    results['topk'] = results['topk_indices']
    results['enc_logits0'] = results['enc_logits'][..., 0]
    return results, head_inputs


def loss_kinds(meta: dict) -> dict[str, int]:
    """Below the change of the matching cost, and from it on."""
    notes = meta['losses_notes']
    kinds = {'': notes['matcher_iter']}
    if notes.get('second_matcher_iter') is not None:
        kinds['ho_'] = notes['second_matcher_iter']
    return kinds


def matches(
    meta: dict, arrays: dict[str, np.ndarray], kind: str
) -> Iterator[Match]:
    """``match.aux3_one2many``: rows of image, query and repeated target."""
    last = meta['model']['decoder_layers'] - 1
    for name, array in arrays.items():
        if not name.startswith(f'{kind}match.'):
            continue
        place, _, group = name.partition('match.')[2].partition('_')
        if place == 'enc':
            prefix, layer = 'enc_', 0
        else:
            prefix = f'{group}_' if group else ''
            layer = last if place == 'last' else int(place.strip('aux'))
        images, queries, copies = torch.from_numpy(array).long().T
        for image, target in enumerate(meta['targets']):
            rows = images == image
            targets = copies[rows] % max(len(target['labels']), 1)
            yield Match(name, prefix, layer, image, queries[rows], targets)


def build_config(meta: dict) -> ConfigDict:
    """Set in a shipped config what the golden's ``model`` entry says."""
    entry = meta['model'].renamed(WORDS)
    matcher = entry['matcher']
    shipped = SHIPPED[entry['backbone'].split()[0]]
    model = Config.fromfile(CONFIGS / 'rank_detr' / shipped).model
    model.num_queries = entry['num_queries_one2one']
    model.one2many = dict(
        num_queries=entry['num_queries_one2many'],
        num_copies=entry['k_one2many'],
        loss_weight=entry['lambda_one2many'],
    )
    model.as_two_stage = entry['as_two_stage']
    model.with_box_refine = entry['with_box_refine']
    model.mixed_selection = entry['mixed_selection']
    model.decoder.look_forward_twice = entry['look_forward_twice']
    model.rank_adaptive_classhead = entry['rank_adaptive_classhead']
    model.query_rank_layer = entry['query_rank_layer']
    if not entry['GIoU_aware_class_loss']:
        model.bbox_head.loss_cls.type = 'FocalLoss'
    model.bbox_head.num_classes = entry['num_classes']
    model.test_cfg.max_per_img = entry['select_box_nums_for_evaluation']
    assigner = model.train_cfg.assigner
    assigner.late_match_costs[0].alpha = matcher['iou_order_alpha']
    assigner.late_begin = matcher['matcher_change_iter'] / MAX_ITERS
    model.backbone.init_cfg = None
    if 'drop_path_rate' in model.backbone:
        model.backbone.drop_path_rate = 0.0
    h_detr.set_transformer(model, entry)
    h_detr.set_levels(model, entry)
    h_detr.set_costs(model, matcher)
    h_detr.set_loss_weights(model, meta['losses'])
    return model
