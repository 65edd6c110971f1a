"""H-DETR: the authors' repository and detrex's project."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from tests.helpers.configs import CONFIGS

from ..golden_runs import run_stages
from .defaults import loss_kinds
from .entry import ANYTHING
from .match import Match

if TYPE_CHECKING:
    from ..goldens import Golden

__all__ = ['loss_kinds']

IMPLIED = {'frozen': ANYTHING}  # the gradients tell
SWIN = {
    'swin_tiny': 'h-detr_swin-t_8xb2-12e_coco.py',
    'swin_small': 'h-detr_swin-s_8xb2-12e_coco.py',
    'swin_large': 'h-detr_swin-l_8xb2-12e_coco.py',
}


def recognises(meta: dict) -> bool:
    source = meta['source']
    return source['repository'] == 'HDETR/H-Deformable-DETR' or any(
        'h_deformable_detr' in file for file in source['files']
    )


def evaluated_images(meta: dict) -> list[int]:
    """detrex was evaluated on the first image alone."""
    batch_size = len(meta['input']['img_shapes'])
    return [0] if _is_detrex(meta) else list(range(batch_size))


def loss_name(name: str) -> str:
    """``loss_ce_0_one2many`` -> ``d0.one2many_loss_cls``."""
    term, suffix = re.fullmatch('loss_(ce|class|bbox|giou)(.*)', name).groups()
    term = {'ce': 'cls', 'class': 'cls', 'giou': 'iou'}.get(term, term)
    name = f'loss_{term}'
    if suffix.endswith('_one2many'):
        name, suffix = f'one2many_{name}', suffix.removesuffix('_one2many')
    if suffix == '_enc':
        return f'enc_{name}'
    return f'd{suffix[1:]}.{name}' if suffix else name


def output_sizes(meta: dict) -> list[list[int]]:
    return meta.get('post', {}).get('target_sizes', [])


def run(
    golden: 'Golden', model: nn.Module, images: list[int]
) -> tuple[dict[str, Tensor], dict]:
    """Results under the goldens' names; in training of each query group."""
    results, head_inputs = run_stages(
        model, golden.image(images), golden.samples(images)
    )
    if model.training:
        num_queries = model.num_queries
        for name in ('logits', 'boxes'):
            results[f'{name}_one2many'] = results[name][:, :, num_queries:]
            results[name] = results[name][:, :, :num_queries]
    return results, head_inputs


def matches(
    meta: dict, arrays: dict[str, np.ndarray], kind: str
) -> Iterator[Match]:
    """``match.one2many.d3.img0``: queries and targets."""
    for name, array in arrays.items():
        found = re.fullmatch(r'match\.(\w+?)(?:\.d(\d+))?\.img(\d+)', name)
        if found:
            group, layer, image = found.groups()
            prefix = {'one2one': ''}.get(group, f'{group}_')
            rows = torch.from_numpy(array).long()
            yield Match(name, prefix, int(layer or 0), int(image), *rows)


def build_config(meta: dict) -> ConfigDict:
    """Set in a shipped config what the golden's ``model`` entry says."""
    entry = meta['model']
    model = Config.fromfile(CONFIGS / 'h_detr' / _shipped(meta)).model
    model.num_queries = entry['num_queries_one2one']
    model.one2many = dict(
        num_queries=entry['num_queries_one2many'],
        num_copies=entry['k_one2many'],
        loss_weight=entry['lambda_one2many'],
    )
    model.as_two_stage = entry['two_stage']
    model.with_box_refine = entry['with_box_refine']
    model.mixed_selection = entry['mixed_selection']
    model.decoder.look_forward_twice = entry['look_forward_twice']
    model.inverse_sigmoid_eps = entry['inverse_sigmoid_eps']
    model.test_cfg = dict(
        max_per_img=entry['topk_detections'], clip_bboxes=False
    )
    model.bbox_head.num_classes = entry['num_classes']
    set_transformer(model, entry)
    set_levels(model, entry)
    set_loss_weights(model, meta['losses'])
    set_costs(model, entry['matcher'])
    model.bbox_head.loss_cls.update(
        alpha=entry['focal_alpha'], gamma=entry['focal_gamma']
    )
    set_backbone(model, entry)
    return model


def _is_detrex(meta: dict) -> bool:
    return 'detrex' in meta['source']['repository']


def _shipped(meta: dict) -> str:
    """The shipped config with the backbone and numerics of the source."""
    backbone = meta['model']['backbone'].split()[0]
    name = SWIN.get(backbone, 'h-detr_r50_8xb2-12e_coco.py')
    return name.replace('_coco', '_coco-detrex') if _is_detrex(meta) else name


def set_transformer(model: ConfigDict, entry: dict) -> None:
    """Widths, depths and dropout."""
    dims, dropout = entry['hidden_dim'], entry['dropout']
    ffn = dict(
        embed_dims=dims,
        feedforward_channels=entry['dim_feedforward'],
        ffn_drop=dropout,
    )
    points = entry.get('points', 4)
    heads = entry['nheads']
    deformable = dict(
        embed_dims=dims, num_heads=heads, num_points=points, dropout=dropout
    )
    model.encoder.num_layers = entry['enc_layers']
    model.decoder.num_layers = entry['dec_layers']
    model.encoder.layer_cfg.update(ffn_cfg=ffn)
    model.encoder.layer_cfg.self_attn_cfg.update(deformable)
    model.decoder.layer_cfg.update(ffn_cfg=ffn)
    model.decoder.layer_cfg.cross_attn_cfg.update(deformable)
    model.decoder.layer_cfg.self_attn_cfg.update(
        embed_dims=dims, num_heads=heads, dropout=dropout
    )
    model.positional_encoding.num_feats = dims // 2
    model.neck.out_channels = dims
    model.bbox_head.embed_dims = dims


def set_levels(model: ConfigDict, entry: dict) -> None:
    """A single level is the projected last feature map."""
    num_levels = entry.get('num_feature_levels', 4)
    model.num_feature_levels = num_levels
    model.encoder.layer_cfg.self_attn_cfg.num_levels = num_levels
    model.decoder.layer_cfg.cross_attn_cfg.num_levels = num_levels
    model.neck.num_outs = num_levels
    if num_levels == 1:
        model.backbone.out_indices = (3,)
        model.neck.in_channels = model.neck.in_channels[-1:]


def set_loss_weights(model: ConfigDict, losses: dict) -> None:
    """Weights of the terms, which are those of the first stage, too."""
    head = model.bbox_head
    for name, weight in losses.items():
        term = loss_name(name).rpartition('loss_')[2]
        head[f'loss_{term}'].loss_weight = weight
    if 'enc_loss_cls' in head:
        head.enc_loss_cls.loss_weight = head.loss_cls.loss_weight


def set_costs(model: ConfigDict, matcher: dict) -> None:
    """Weights and constants of the matching cost."""
    cls_cost, l1_cost, iou_cost = model.train_cfg.assigner.match_costs
    cls_cost.update(
        weight=matcher['cost_class'],
        alpha=matcher['alpha'],
        gamma=matcher['gamma'],
        eps=matcher.get('log_eps', 1e-8),
    )
    l1_cost.weight = matcher['cost_bbox']
    iou_cost.weight = matcher['cost_giou']


def set_backbone(model: ConfigDict, entry: dict) -> None:
    """No weights to download, no stochastic depth; other ResNets."""
    model.backbone.init_cfg = None
    backbone = entry['backbone'].split()[0]
    if backbone.startswith('resnet'):
        model.backbone.depth = int(backbone.removeprefix('resnet'))
        if entry.get('dilation'):
            model.backbone.type = 'DC5ResNet'
    else:
        model.backbone.drop_path_rate = 0.0
        model.backbone.with_cp = False
