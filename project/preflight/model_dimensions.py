# Copyright (c) mmdetr authors. All rights reserved.
"""Whether the parts of a model fit together: channels, levels, widths.

The first batch would otherwise fail with a message about tensor shapes. A
model on the meta device shows the shapes here, which takes a second.
"""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from project.checkpoints.model_layout import build_on_meta, on_meta
from project.preflight.config_tree import (
    is_a,
    is_known,
    named_dicts,
    registered_class,
)
from project.preflight.settings import bare_model
from project.utils.errors import UserError

_IMAGE_SIZE = 256
# Models that were built before in this process, such as for several runners.
_passed: set[str] = set()


def check_seams(cfg: Config) -> None:
    """Compare what each part of a DETR gives with what the next one takes.

    Models that cannot be built, or do not compute without values, pass: the
    first end in an error of their own.

    Raises:
        UserError: If two parts do not fit.
    """
    settings = bare_model(cfg)
    if not is_a(registered_class(settings, MODELS), DetectionTransformer):
        return
    key = repr(settings)
    if key in _passed:
        return
    try:
        model = build_on_meta(settings).eval()
        features = _features(model.backbone)
        channels = [feature.shape[1] for feature in features]
    except Exception:  # anything a model of the user's own may raise
        return
    widths = channels
    if model.with_neck:
        try:
            with on_meta(), torch.no_grad():
                features = model.neck(features)
            widths = [feature.shape[1] for feature in features]
        except Exception:  # a neck that computes takes what it is given
            _check_neck(settings, channels)
            return
    if not _joins_as_mmdet(model):
        return
    _check_widths(model, settings, widths)
    _check_levels(model, settings, len(features))
    _check_strides(model, settings, features)
    _passed.add(key)


def _features(backbone: nn.Module) -> tuple[torch.Tensor, ...]:
    """What the backbone makes of an image, without values."""
    with on_meta(), torch.no_grad():
        image = torch.empty(1, 3, _IMAGE_SIZE, _IMAGE_SIZE)
        return tuple(backbone(image))


def _joins_as_mmdet(model: DetectionTransformer) -> bool:
    """Tell whether features go from part to part as in known detectors.

    A class of the user's own may project or choose them in between.
    """
    detector = type(model)
    return is_known(detector.extract_feat) and is_known(
        detector.pre_transformer
    )


def _check_neck(settings: dict, channels: list[int]) -> None:
    """Compare the backbone's channels with those the neck was made for."""
    neck = settings['neck']  # may be a list of necks
    expected = neck.get('in_channels') if isinstance(neck, dict) else None
    if not isinstance(expected, (list, tuple)):
        return
    if list(expected) != channels:
        raise UserError(
            f'model.neck.in_channels is {list(expected)}, but model.backbone '
            f'({_title(settings["backbone"])}) gives {channels}: set it to '
            'that, or choose others by model.backbone.out_indices.'
        )


def _check_widths(
    model: DetectionTransformer, settings: dict, channels: list[int]
) -> None:
    """Compare the width of the features with the transformer's parts."""
    width = getattr(model.encoder, 'embed_dims', None)
    if width is None:
        return
    if any(other != width for other in channels):
        if not model.with_neck:
            raise UserError(
                f'model.encoder works on {width} channels, but model.backbone '
                f'({_title(settings["backbone"])}) gives {channels} and there '
                'is no model.neck to map them.'
            )
        raise UserError(
            f'model.neck gives {channels} channels, but model.encoder works '
            f'on {width}: model.neck.out_channels and the embed_dims of '
            'encoder and decoder should be the same.'
        )
    for place, part in _transformer_parts(model):
        other = getattr(part, 'embed_dims', width)
        if other != width:
            raise UserError(
                f'{place}.embed_dims is {other}, but model.encoder works on '
                f'{width}: all embed_dims of the model should be the same.'
            )


def _check_levels(
    model: DetectionTransformer, settings: dict, given: int
) -> None:
    """Compare the number of feature maps with the attention over them."""
    source = 'model.neck' if model.with_neck else 'model.backbone'
    expected = {
        f'{place}.num_levels': part.num_levels
        for place, part in _transformer_parts(model)
        if isinstance(getattr(part, 'num_levels', None), int)
    }
    if not expected:
        return  # not on several levels
    if isinstance(settings.get('num_feature_levels'), int):
        expected['model.num_feature_levels'] = settings['num_feature_levels']
    for place, number in expected.items():
        if number != given:
            raise UserError(
                f'{source} gives {given} feature maps, but {place} is '
                f'{number}: model.neck.num_outs, model.num_feature_levels and '
                'each num_levels should be the same.'
            )


def _transformer_parts(
    model: DetectionTransformer,
) -> Iterator[tuple[str, nn.Module]]:
    """Name the parts of encoder and decoder as the config does."""
    for coder in ('encoder', 'decoder'):
        layers = getattr(getattr(model, coder, None), 'layers', None)
        for layer in layers or ():
            for name in ('self_attn', 'cross_attn', 'ffn'):
                part = getattr(layer, name, None)
                if isinstance(part, nn.Module):
                    place = f'model.{coder}.layer_cfg.{name}_cfg'
                    yield place, part
    yield 'model.bbox_head', model.bbox_head


def _check_strides(
    model: DetectionTransformer,
    settings: dict,
    features: tuple[torch.Tensor, ...],
) -> None:
    """Compare the strides that regions are cut out by with the true ones.

    Those of HPR's published Swin-L are all twice the true ones, and its
    weights were trained with them, so one factor for all levels is a warning.
    """
    true = [_IMAGE_SIZE // feature.shape[-1] for feature in features]
    for module in model.modules():
        # Of the refiners, no module itself.
        strides = getattr(getattr(module, 'roi_align', None), 'strides', None)
        if not strides:
            continue
        factors = {a / b for a, b in zip(strides, true, strict=False)}
        if factors == {1}:
            continue
        places = [
            f'{place}.featmap_strides'
            for place, part in named_dicts(settings, 'model')
            if 'featmap_strides' in part
        ]
        place = places[0] if places else 'The featmap_strides of regions'
        finding = (
            f'{place} is {list(strides)}, but the feature maps have the '
            f'strides {true}'
        )
        if len(factors) > 1:
            raise UserError(f'{finding}.')
        print_log(
            f'{finding}, so regions are cut out elsewhere. The published '
            'HPR weights with Swin-L were trained so; set the true ones to '
            'train anew.',
            'current',
            logging.WARNING,
        )
        return


def _title(part: Any) -> str:
    """Name a part by its type, and its depth where that tells it apart."""
    kind = part.get('type')
    title = getattr(kind, '__name__', str(kind))
    return f'{title}-{part["depth"]}' if 'depth' in part else title
