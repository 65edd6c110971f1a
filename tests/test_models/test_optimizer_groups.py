# Copyright (c) mmdetr authors. All rights reserved.
"""Learning rates reach the parameters that the sources gave them to."""

import json
from collections import Counter
from functools import cache

import pytest
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from project.utils.checkpoint import (
    build_on_meta,
    convert_state_dict,
    fitting_configs,
)
from project.utils.paths import config_path
from tests.helpers.checkpoints import key_listings, numbered_weights

LEARNING_RATES = dict(base=2e-4, linear_proj=2e-5, backbone=2e-5)


@cache
def build(config: str, num_classes: int) -> tuple[nn.Module, Config]:
    """A config's model without memory, for the source's classes."""
    cfg = Config.fromfile(config_path(config))
    cfg.model.bbox_head.num_classes = num_classes
    return build_on_meta(cfg.model), cfg


def group_of(name: str) -> str:
    """The sources sort by these words."""
    if 'backbone' in name:
        return 'backbone'
    offsets = 'sampling_offsets' in name or 'reference_points' in name
    return 'linear_proj' if offsets else 'base'


@pytest.fixture(
    params=key_listings('h_detr'), ids=lambda path: path.stem, scope='module'
)
def listing(request):
    """A listing, its weights converted, and the first config they fit."""
    keys = json.loads(request.param.read_text())
    weights = numbered_weights(keys)
    kept = 91 if keys['layout'] == 'authors' else 80
    converted = convert_state_dict(weights, num_classes=kept)
    config = fitting_configs(converted)[0]
    return keys, converted, *build(config, kept)


def test_frozen_parameters_are_those_of_the_source(listing):
    keys, converted, model, _ = listing
    frozen = {
        converted.origins[name]
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
        and not is_batch_norm(name, converted.state_dict)
    }
    assert frozen == set(keys['frozen_parameters'])


def is_batch_norm(name: str, weights: dict) -> bool:
    """The sources keep these as buffers."""
    return f'{name.rpartition(".")[0]}.running_var' in weights


def test_groups_have_the_sizes_of_the_source(listing):
    keys, _, model, cfg = listing
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    tensors, elements = Counter(), Counter()
    for group in optimizer.param_groups:
        for parameter in group['params']:
            if not parameter.requires_grad:
                continue
            kind = group_of(names[id(parameter)])
            assert group['lr'] == pytest.approx(LEARNING_RATES[kind])
            assert group['weight_decay'] == 1e-4
            tensors[kind] += 1
            elements[kind] += parameter.numel()
    found = {
        kind: dict(tensors=tensors[kind], elements=elements[kind])
        for kind in LEARNING_RATES
    }
    assert found == keys['optimizer_groups']
    assert sum(elements.values()) == keys['num_trainable']
