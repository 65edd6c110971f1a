"""DN-DETR and its deformable forms: the authors' repository and detrex."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from project.models.layers.dn_query_generator import DenoisingNoise
from tests.helpers.configs import CONFIGS

from . import h_detr
from .defaults import evaluated_images, loss_kinds, output_sizes
from .match import Match

if TYPE_CHECKING:
    from ..goldens import Golden

__all__ = ['evaluated_images', 'loss_kinds', 'output_sizes']

SHIPPED = {
    'DN-DETR (DAB-DETR base)': 'dn-detr_r50_8xb2-50e_coco.py',
    'DN-DAB-deformable-DETR, deformable attention in encoder and decoder': (
        'dn-deformable-detr_r50_8xb2-50e_coco.py'
    ),
    'DN-DAB-deformable-DETR, deformable encoder only': (
        'dn-deformable-encoder-detr_r50_3pat_16xb1-50e_coco.py'
    ),
    'dn_detr_r50': 'dn-detr_r50_8xb2-50e_coco-detrex.py',
    'dn_detr_r50_dc5': 'dn-detr_r50-dc5_16xb1-50e_coco-detrex.py',
    'dn_deformable_detr_r50': 'dn-deformable-detr_r50_8xb2-50e_coco-detrex.py',
}
"""By the authors' name of the method, or that of detrex's config."""
IMPLIED: dict = {}


def recognises(meta: dict) -> bool:
    source = meta['source']
    return source['repository'] == 'IDEA-Research/DN-DETR' or any(
        file.startswith('projects/dn_') for file in source['files']
    )


def loss_name(name: str) -> str:
    """``tgt_loss_ce_0`` and ``loss_class_dn_0`` -> ``d0.dn_loss_cls``."""
    found = re.fullmatch(
        r'(tgt_)?loss_(ce|class|bbox|giou)(_dn)?(?:_(\d+))?', name
    )
    before, term, behind, layer = found.groups()
    term = {'ce': 'cls', 'class': 'cls', 'giou': 'iou'}.get(term, term)
    stage = '' if layer is None else f'd{layer}.'
    return f'{stage}{"dn_" if before or behind else ""}loss_{term}'


def matches(
    meta: dict, arrays: dict[str, np.ndarray], kind: str
) -> Iterator[Match]:
    """Rows of layer, image, query and ground truth."""
    table = torch.from_numpy(arrays['train.match']).long()
    for layer in table[:, 0].unique().tolist():
        for image in range(len(meta['targets'])):
            rows = table[(table[:, 0] == layer) & (table[:, 1] == image)]
            yield Match(
                'train.match', '', layer, image, rows[:, 2], rows[:, 3]
            )


def run(
    golden: 'Golden', model: nn.Module, images: list[int]
) -> tuple[dict[str, Tensor], dict]:
    """Results under the goldens' names, with the golden's noise."""
    samples = golden.samples(images)
    if _is_detrex(golden.meta) and not model.training:
        for sample in samples:  # it takes padding for image
            sample.set_metainfo(dict(img_shape=sample.batch_input_shape))
    feats = model.extract_feat(golden.image(images))
    with (
        mock.patch.object(
            model.dn_query_generator, 'draw_noise', _noise_of(golden)
        ),
        _spied(model, 'forward_decoder') as decoder_calls,
        _spied(model, 'forward_encoder') as encoder_calls,
    ):
        head_inputs = model.forward_transformer(feats, samples)
    ((_, encoder_outputs),) = encoder_calls
    ((decoder_inputs, _),) = decoder_calls
    output = head_inputs['decoder_output']
    logits, boxes = model.bbox_head(**head_inputs)
    results = dict(
        memory=encoder_outputs['memory'],
        hs=output.hidden_states,
        references=torch.stack(output.references),
        logits=logits,
        boxes=boxes,
        **{f'feat{level}': feat for level, feat in enumerate(feats)},
    )
    if model.training:
        results.update(
            _training_results(model, results, decoder_inputs, head_inputs)
        )
    else:
        results.update(_detections(golden, model, results))
    return results, head_inputs


def _noise_of(golden: 'Golden') -> Callable[..., DenoisingNoise]:
    """What draws the golden's random numbers."""

    def draw(num: int, device: torch.device) -> DenoisingNoise:
        arrays = {
            name: torch.from_numpy(golden.arrays[f'noise.{name}']).to(device)
            for name in ('label_p', 'label_new', 'box_rand')
        }
        assert len(arrays['label_p']) == num
        is_flipped = arrays['label_p'] < golden.meta['model']['label_noise']
        labels = torch.zeros_like(is_flipped, dtype=torch.long)
        labels[is_flipped] = arrays['label_new']
        return DenoisingNoise(arrays['label_p'], labels, arrays['box_rand'])

    return draw


@contextmanager
def _spied(owner: object, method: str) -> Iterator[list[tuple[dict, object]]]:
    """Collect what a method is given, by name, and what it returns."""
    calls = []
    original = getattr(owner, method)

    def spy(**kwargs: object) -> object:
        calls.append((kwargs, original(**kwargs)))
        return calls[-1][1]

    with mock.patch.object(owner, method, spy):
        yield calls


def _training_results(
    model: nn.Module, results: dict, decoder_inputs: dict, head_inputs: dict
) -> dict[str, Tensor]:
    """Denoising and matched queries apart, and what the decoder gets."""
    end = head_inputs['denoising'].num_queries
    query = decoder_inputs['query'].clone()
    if getattr(model, 'patterns', None) is not None:
        # The goldens have contents before the patterns are added.
        patterns = model.patterns.weight
        query[:, end:] -= patterns.repeat_interleave(model.num_queries, 0)
    anchors = decoder_inputs['reference_points'].logit()
    groups = decoder_inputs['query_groups']
    return dict(
        logits=results['logits'][:, :, end:],
        boxes=results['boxes'][:, :, end:],
        dn_logits=results['logits'][:, :, :end],
        dn_boxes=results['boxes'][:, :, :end],
        attn_mask=~groups.attention_mask(torch.device('cpu')),
        query_label=query,
        query_bbox_unact=anchors,
        dn_query_label=query[:, :end],
        dn_query_bbox_unact=anchors[:, :end],
    )


def _detections(
    golden: 'Golden', model: nn.Module, results: dict
) -> dict[str, Tensor]:
    logits, boxes = results['logits'][-1], results['boxes'][-1]
    metas = [
        dict(img_shape=shape, scale_factor=(1.0, 1.0))
        for shape in golden.meta['input']['img_shapes']
    ]
    found = model.bbox_head.predict_by_feat(logits, boxes, metas)
    return dict(
        logits_last=logits,
        logits_final=logits,
        boxes_final=boxes,
        det_scores=torch.stack([image.scores for image in found]),
        det_labels=torch.stack([image.labels for image in found]),
        det_boxes=torch.stack([image.bboxes for image in found]),
    )


def build_config(meta: dict) -> ConfigDict:
    """Set in a shipped config what the golden's ``model`` entry says."""
    entry = meta['model']
    name = Path(entry['config']).stem if _is_detrex(meta) else entry['method']
    model = Config.fromfile(CONFIGS / 'dn_detr' / SHIPPED[name]).model
    model.num_queries = entry['num_queries']
    model.dn_cfg.update(
        label_noise_scale=entry['label_noise'],
        box_noise_scale=entry['box_noise'],
        group_cfg=dict(dynamic=False, num_groups=entry['dn_groups']),
    )
    model.bbox_head.num_classes = entry['num_classes']
    model.test_cfg.clip_bboxes = False
    model.backbone.init_cfg = None
    matched = {
        name: weight
        for name, weight in meta['losses'].items()
        if 'dn_' not in loss_name(name)
    }
    h_detr.set_loss_weights(model, matched)
    set_dropout(model, entry['dropout'])
    if _is_detrex(meta):
        assert entry['label_encoder_entries'] == entry['num_classes'] + 1
    else:
        _set_architecture(model, entry)
    return model


def set_dropout(model: ConfigDict, dropout: float) -> None:
    """Of attention and FFN, in all layers."""
    for coder in (model.encoder, model.decoder):
        for part in coder.layer_cfg.values():
            for key in ('dropout', 'attn_drop', 'proj_drop', 'ffn_drop'):
                if isinstance(part, dict) and key in part:
                    part[key] = dropout


def _set_architecture(model: ConfigDict, entry: dict) -> None:
    """What only the authors' goldens name."""
    dims = entry['hidden_dim']
    model.backbone.depth = int(entry['backbone'].removeprefix('resnet'))
    if entry['dilated_last_stage']:
        model.backbone.type = 'DC5ResNet'
    if 'feature_levels' in entry:
        assert entry['feature_levels'] == model.num_feature_levels
    if model.type != 'DNDeformableDETR':
        model.num_patterns = entry['num_patterns']
    else:
        assert entry['num_patterns'] == 0
    model.neck.out_channels = model.bbox_head.embed_dims = dims
    model.positional_encoding.num_feats = dims // 2
    temperature = entry['position_temperature']
    if isinstance(temperature, list):  # of height and width, always alike
        (temperature,) = set(temperature)
    model.positional_encoding.temperature = temperature
    model.positional_encoding.offset = entry.get('position_offset', 0.0)
    model.encoder.num_layers = entry['encoder_layers']
    model.decoder.num_layers = entry['decoder_layers']
    activation = {'prelu': 'PReLU', 'relu': 'ReLU'}[entry['activation']]
    for coder in (model.encoder, model.decoder):
        coder.layer_cfg.ffn_cfg.update(
            embed_dims=dims,
            feedforward_channels=entry['ffn'],
            act_cfg=dict(type=activation),
        )
        for name, points in (('self', 'enc_points'), ('cross', 'dec_points')):
            attention = coder.layer_cfg.get(f'{name}_attn_cfg')
            if attention:
                attention.update(embed_dims=dims, num_heads=entry['heads'])
                if 'num_points' in attention:
                    attention.num_points = entry[points]
    matcher = entry['matcher']
    cls_cost, l1_cost, iou_cost = model.train_cfg.assigner.match_costs
    cls_cost.weight = matcher['cls']
    l1_cost.weight = matcher['l1']
    iou_cost.weight = matcher['giou']
    model.bbox_head.loss_cls.alpha = entry['focal_alpha']


def _is_detrex(meta: dict) -> bool:
    return 'detrex' in meta['source']['repository']
