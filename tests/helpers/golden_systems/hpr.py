"""HPR: the authors' repository, whose names are this project's."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from project.models.layers.dn_query_generator import DenoisingNoise
from project.models.layers.transformer.ddq_decoder import DistinctQueryGroups
from tests.helpers.configs import CONFIGS

from . import h_detr
from .defaults import evaluated_images, loss_kinds, output_sizes
from .entry import ANYTHING
from .match import Match

if TYPE_CHECKING:
    from ..goldens import Golden

__all__ = ['evaluated_images', 'loss_kinds', 'output_sizes']

NAMES_ARE_OURS = True
IMPLIED = {
    'config': ANYTHING,  # told in full by the others
    'differs_from_config': ANYTHING,
    'backbone_norm': ANYTHING,  # of Swin, which has one kind
    'dn': (None,),
    'distinct': (None,),
    'align': (None,),
}
SHIPPED = {
    'Deformable DETR': 'hpr_dino',
    'DINO': 'hpr_dino',
    'Align DETR': 'hpr_align-detr',
    'DDQ': 'hpr_ddq',
}
NORMS = {
    'SyncBN (eval)': 'SyncBN',
    'BN (eval)': 'BN',
    'FrozenBN': 'FrozenBN',
}


def recognises(meta: dict) -> bool:
    return meta['source']['repository'] == 'ZhaoJingjing713/HPR'


def detections(
    golden: 'Golden', model: nn.Module, head_inputs: dict
) -> dict[str, Tensor]:
    """What the head makes of its inputs in evaluation."""
    samples = golden.samples(evaluated_images(golden.meta))
    for sample in samples:
        sample.set_metainfo(
            dict(scale_factor=golden.meta['input']['scale_factor'])
        )
    found = model.bbox_head.predict(**head_inputs, batch_data_samples=samples)
    return {
        name: torch.stack([instances[key] for instances in found])
        for name, key in dict(
            scores='scores', labels='labels', boxes='bboxes'
        ).items()
    }


def loss_name(name: str) -> str:
    return name


def run(
    golden: 'Golden', model: nn.Module, images: list[int]
) -> tuple[dict[str, Tensor], dict]:
    """Results under the goldens' names, the insides of layers among them."""
    samples = golden.samples(images)
    feats = model.extract_feat(golden.image(images))
    results = {f'neck{level}': feat for level, feat in enumerate(feats)}
    encoder_inputs, decoder_inputs = model.pre_transformer(feats, samples)
    memory = model.forward_encoder(**encoder_inputs)
    with injected_noise(golden, model):
        queries, head_inputs = model.pre_decoder(
            **memory, batch_data_samples=samples
        )
    decoder_inputs.update(queries)
    followers = []
    with (
        recorded_layers(model.decoder, results),
        spied(DistinctQueryGroups, 'followed_by', followers),
    ):
        head_inputs.update(model.forward_decoder(**decoder_inputs))
    if followers:
        results['distinct_mask'] = torch.stack([g.alive for g in followers])
        results['distinct_keep'] = torch.stack([g.keep for g in followers])
    output = head_inputs['decoder_output']
    logits, boxes = model.bbox_head(**head_inputs)
    results.update(
        memory=memory['memory'],
        init_query=queries['query'],
        init_references=queries['reference_points'],
        hidden=output.hidden_states,
        references=torch.stack(output.references),
        logits=logits,
        boxes=boxes,
    )
    if model.training:
        results.update(training_results(head_inputs, queries, logits, boxes))
    return results, head_inputs


def training_results(
    head_inputs: dict, queries: dict, logits: Tensor, boxes: Tensor
) -> dict[str, Tensor]:
    """What only training has."""
    results = {'main.logits': logits, 'main.boxes': boxes}
    for i, branch in enumerate(head_inputs['auxiliary']):
        outputs = branch.head(branch.decoder_output)
        results[f'aux{i}.logits'], results[f'aux{i}.boxes'] = outputs
    first_stage = head_inputs['first_stage']
    stages = {'': first_stage, 'dense_': getattr(first_stage, 'dense', None)}
    for name, stage in stages.items():
        if stage is not None:
            results[f'{name}enc_logits'] = stage.cls_scores
            results[f'{name}enc_boxes'] = stage.bbox_preds
    if 'denoising' in head_inputs:
        denoising = head_inputs['denoising']
        groups = queries['query_groups']
        matching = groups['matching'].stop
        mask = groups.attention_mask(logits.device)[..., :matching, :matching]
        results['dn_mask'] = ~mask.reshape(-1, *mask.shape[-2:])[0]
        results['dn_bbox_query'] = denoising.references_unact
        results['dn_label_query'] = denoising.query
    return results


@contextmanager
def injected_noise(golden: 'Golden', model: nn.Module) -> Iterator[None]:
    """Draw the source's random numbers."""
    if not model.training or 'noise.p' not in golden.arrays:
        yield
        return
    noise = {
        name: torch.from_numpy(golden.arrays[f'noise.{name}'])
        for name in ('p', 'new_labels', 'sign01', 'part')
    }
    labels = torch.zeros(len(noise['p']), dtype=torch.long)
    labels[noise['p'] < model.dn_query_generator.flip_probability] = noise[
        'new_labels'
    ]
    drawn = DenoisingNoise(
        noise['p'], labels, noise['part'], noise['sign01'] * 2 - 1
    )
    drawn = DenoisingNoise(
        *(t.to(golden.device) for t in vars(drawn).values())
    )
    with mock.patch.object(
        model.dn_query_generator, 'draw_noise', return_value=drawn
    ):
        yield


@contextmanager
def recorded_layers(decoder: nn.Module, results: dict) -> Iterator[None]:
    """Note in evaluation what happens in the first and last layer."""
    if decoder.training:
        yield
        return
    levels, positions = [], []
    with ExitStack() as stack:
        for index, layer in enumerate(decoder.layers):
            stack.enter_context(spied(layer.roi_align, 'levels', levels))
            regions = results[f'layer{index}.roi_feats'] = []
            stack.enter_context(spied(layer, 'region_features', regions))
        stack.enter_context(spied(decoder, 'embed_position', positions))
        first = decoder.layers[0]
        parts = dict(
            merged_sa=first.merger_SA,
            cross_attn=first.cross_attn,
            dy_conv=first.dy_conv,
            regional_ca=first.regional_ca,
            merged_ffn=first.merger_FFN,
            ca_query=first.ca_ffn,
            dyconv_query=first.dyconv_ffn,
        )
        for name, part in parts.items():
            hook = partial(_note, results, f'layer0.{name}')
            stack.callback(part.register_forward_hook(hook).remove)
        yield
    shape = results['layer0.merged_sa'].shape
    for name in ('ca', 'dyconv'):  # not needed in evaluation
        norm = getattr(first, f'{name}_norms')[2]
        key = f'layer0.{name}_query'
        results[key] = norm(results[key])
    for name in ('dy_conv', 'regional_ca'):
        key = f'layer0.{name}'
        results[key] = results[key].view(shape)
    for index in range(len(decoder.layers)):
        key = f'layer{index}.roi_feats'
        maps = results[key][0].transpose(1, 2).unflatten(2, (7, 7))
        results[key] = maps.unflatten(0, shape[:2])
    results['layer0.query_pos'] = positions[0]
    results['roi_level'] = torch.stack(levels)


def _note(results: dict, name: str, part: nn.Module, args, output) -> None:
    results[name] = output


def spied(owner: object, name: str, results: list) -> mock._patch:
    """Collect what a method returns."""
    original = getattr(owner, name)

    def spy(*args, **kwargs):
        results.append(original(*args, **kwargs))
        return results[-1]

    return mock.patch.object(owner, name, spy)


def matches(
    meta: dict, arrays: dict[str, np.ndarray], kind: str
) -> Iterator[Match]:
    """``match.aux1``: for each layer and image the target of every query."""
    num_images = len(meta['targets'])
    for name, array in arrays.items():
        found = re.fullmatch(r'match\.(main|aux(\d))(\.dense)?', name)
        if not found:
            continue
        branch = '' if found[1] == 'main' else f'hpr_{found[2]}_'
        if found[3]:
            images = [i for i, t in enumerate(meta['targets']) if t['labels']]
        else:
            images = list(range(num_images))
        for row, assigned in enumerate(array):
            layer, place = divmod(row, len(images))
            is_first_stage = layer == meta['model']['refiner_layers']
            prefix = 'enc_' if is_first_stage else ''
            prefix = f'{prefix}dense_' if found[3] else prefix
            assigned = torch.from_numpy(assigned).long()
            queries = (assigned > 0).nonzero()[:, 0]
            yield Match(
                f'{name}[{row}]',
                f'{branch}{prefix}',
                0 if is_first_stage else layer,
                images[place],
                queries,
                assigned[queries] - 1,
            )


def build_config(meta: dict) -> ConfigDict:
    """Set in a shipped config what the golden's ``model`` entry says."""
    entry = meta['model']
    is_swin = entry['backbone'].startswith('Swin-L')
    name = f'{SHIPPED[entry["base"]]}_{"swin-l" if is_swin else "r50"}.py'
    model = Config.fromfile(CONFIGS / '_base_' / 'models' / name).model
    model.num_queries = entry['num_queries']
    model.aux_weights = entry['aux_weights']
    model.test_cfg.max_per_img = entry['max_detections']
    model.positional_encoding.update(entry['encoder_position'].everything())
    model.backbone.init_cfg = None
    if is_swin:
        model.backbone.update(drop_path_rate=0.0, with_cp=False)
    else:
        assert entry['backbone'] == f'ResNet-{model.backbone.depth}'
        model.backbone.norm_cfg.type = NORMS[entry['backbone_norm']]
    model.neck.bias = entry['neck_bias'] or 'auto'
    model.bbox_head.num_classes = entry['num_classes']
    if not entry['use_dn']:
        model.use_dn = False
    else:
        set_denoising(model.dn_cfg, entry['dn'])
    set_transformer(model, entry)
    set_refiners(model.decoder, entry)
    set_losses(model, entry)
    if entry['align']:
        model.bbox_head.update(
            all_layers_num_gt_repeat=entry['align']['gt_repeat'],
            alpha=entry['align']['alpha'],
            gamma=entry['align']['gamma'],
            tau=entry['align']['tau'],
        )
    if entry['distinct']:
        model.dqs_cfg.iou_threshold = entry['distinct']['nms_iou']
        model.dense_topk_ratio = entry['distinct']['dense_topk_ratio']
        model.bbox_head.aux_num_pos = entry['distinct']['dense_positives']
    # Recomputed layers fit the machine; a test of its own compares them.
    model.decoder.num_cp = entry['refiner_layers']
    return model


def set_denoising(dn_cfg: ConfigDict, entry: dict) -> None:
    dn_cfg.label_noise_scale = entry['label_noise']
    dn_cfg.box_noise_scale = entry['box_noise']
    dn_cfg.group_cfg = dict(
        dynamic=entry['dynamic'], num_dn_queries=entry['num_dn_queries']
    )


def set_transformer(model: ConfigDict, entry: dict) -> None:
    words = entry.renamed(
        dict(
            num_points='points',
            num_levels='num_feature_levels',
            refiner_layers='dec_layers',
        )
    )
    h_detr.set_transformer(model, words)
    h_detr.set_levels(model, words)


def set_refiners(decoder: ConfigDict, entry: dict) -> None:
    roi = entry['roi']
    extractor = decoder.bbox_roi_extractor
    extractor.roi_layer.update(
        output_size=roi['output_size'],
        sampling_ratio=roi['sampling_ratio'],
        aligned=roi['aligned'],
    )
    extractor.finest_scale = roi['finest_scale']
    extractor.featmap_strides = roi['strides']
    layer = decoder.layer_cfg
    layer.merge_method = entry['merge']
    layer.dy_conv_cfg.feat_channels = entry['dynamic_conv']['feat_channels']
    layer.regional_ca_cfg.sample_num = entry['rca']['sample_num']
    layer.regional_ca_cfg.num_heads = entry['nheads']
    layer.regional_ca_cfg.positional_encoding.update(
        entry['rca']['position'].everything()
    )


def set_losses(model: ConfigDict, entry: dict) -> None:
    weights, costs = entry['loss_weights'], entry['match_costs']
    head = model.bbox_head
    head.loss_cls.loss_weight = weights['cls']
    head.loss_bbox.loss_weight = weights['bbox']
    head.loss_iou.loss_weight = weights['giou']
    cls_cost, l1_cost, iou_cost = model.train_cfg.assigner.match_costs
    cls_cost.weight = costs['cls']
    l1_cost.weight = costs['bbox']
    iou_cost.weight = costs['giou']
