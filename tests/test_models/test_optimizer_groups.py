# Copyright (c) mmdetr authors. All rights reserved.
"""Learning rates reach the parameters that the sources gave them to."""

from collections import Counter
from functools import cache

import pytest
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from project.checkpoints.conversion import convert_state_dict
from project.checkpoints.model_layout import build_on_meta
from project.checkpoints.shipped_configs import fitting_configs
from project.utils.paths import config_path
from tests.helpers.checkpoints import key_listings, numbered_weights, read_keys

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


H_DETR = [name for name in key_listings() if name.startswith('h_detr/')]


@pytest.fixture(params=H_DETR, scope='module')
def listing(request):
    """A listing, its weights converted, and the first config they fit."""
    keys = read_keys(request.param)
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


def group_sizes(model: nn.Module, cfg: Config) -> tuple[Counter, Counter]:
    """Tensors and elements that are trained at each learning rate."""
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
    return tensors, elements


def test_groups_have_the_sizes_of_the_source(listing):
    keys, _, model, cfg = listing
    tensors, elements = group_sizes(model, cfg)
    found = {
        kind: dict(tensors=tensors[kind], elements=elements[kind])
        for kind in LEARNING_RATES
    }
    assert found == keys['optimizer_groups']
    assert sum(elements.values()) == keys['num_trainable']


@pytest.mark.parametrize(
    ('listing', 'expected'),
    [
        # Counted on the authors' model; their training script makes these
        # three groups by substrings, whatever the config says.
        ('r50_12ep', dict(base=317, backbone=52, linear_proj=24)),
        ('swin_tiny_36ep', None),
        ('swin_large_12ep', None),
    ],
)
def test_rank_detr_trains_as_its_script_does(listing, expected):
    keys = read_keys(f'rank_detr/{listing}')
    converted = convert_state_dict(numbered_weights(keys))
    model, cfg = build(fitting_configs(converted)[0], 80)
    tensors, elements = group_sizes(model, cfg)
    assert expected is None or tensors == expected
    assert sum(elements.values()) == keys['trainable_parameters']


@pytest.mark.parametrize('backbone', ['r50', 'r101-dc5'])
def test_anchor_detr_spares_norms_the_decay(backbone):
    """As detectron2's builder groups detrex's model."""
    config = f'anchor_detr/anchor-detr_{backbone}_8xb2-50e_coco.py'
    model, cfg = build(config, 80)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert wrapper.clip_grad_kwargs == dict(max_norm=0.1, norm_type=2)
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm))
        for parameter in module.parameters()
    }
    assert len(norms) == 2 * (1 + 6 * 2 + 6 * 3)
    names = {id(p): name for name, p in model.named_parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = {
        id(parameter): group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }
    for parameter in trained:
        group, name = groups[id(parameter)], names[id(parameter)]
        in_backbone = name.startswith('backbone.')
        assert group['lr'] == pytest.approx(1e-5 if in_backbone else 1e-4)
        decay = 0 if id(parameter) in norms else 1e-4
        assert group['weight_decay'] == decay, name
    frozen = {n.split('.')[1] for n in names.values()} - {
        names[id(p)].split('.')[1] for p in trained
    }
    assert frozen == {'conv1', 'bn1', 'layer1'}


@pytest.mark.parametrize(
    ('name', 'base', 'frozen'),
    [
        ('r50_5scale_8xb2-12e_coco', 2e-4, ('conv1.', 'bn', 'layer1.')),
        ('r50_5scale_no-frozen-backbone_8xb2-12e_coco', 2e-4, ('conv1.',)),
        ('swin-l_5scale_16xb1-24e_coco', 5e-5, ()),
    ],
)
def test_deta_trains_as_its_script_does(name, base, frozen):
    """Two rates, weight decay on everything; Swin is not frozen."""
    model, cfg = build(f'deta/deta_{name}.py', 80)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    weights = model.state_dict()
    kinds = Counter()
    for group in optimizer.param_groups:
        for parameter in group['params']:
            name = names[id(parameter)]
            is_frozen = is_batch_norm(name, weights) or name.startswith(
                tuple(f'backbone.{part}' for part in frozen)
            )
            assert parameter.requires_grad != is_frozen, name
            if is_frozen:
                continue
            kind = group_of(name)
            rate = base if kind == 'base' else base / 10
            assert group['lr'] == pytest.approx(rate), name
            assert group['weight_decay'] == 1e-4
            kinds[kind] += 1
    # Weight and bias of 6 + 6 layers' offsets.
    assert kinds['linear_proj'] == 24
    assert kinds['base'] > kinds['linear_proj']
    assert kinds['backbone'] > 0


def test_detas_small_batch_trains_as_in_detrex():
    """Half the rate, no decay of norms, offsets like everything else."""
    model, cfg = build('deta/deta_r50_5scale_8xb1-12e_coco.py', 80)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    assert cfg.optim_wrapper.clip_grad is None
    for group in optimizer.param_groups:
        for parameter in group['params']:
            name = names[id(parameter)]
            rate = 1e-5 if name.startswith('backbone') else 1e-4
            assert group['lr'] == pytest.approx(rate), name
            is_norm = any(
                isinstance(model.get_submodule(name.rpartition('.')[0]), kind)
                for kind in (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d)
            )
            decay = 0 if is_norm else 1e-4
            assert group['weight_decay'] == decay, name


DN_DETR = [name for name in key_listings() if name.startswith('dn_detr/')]


@pytest.mark.parametrize('listing', DN_DETR)
def test_dn_detr_trains_what_its_sources_train(listing):
    """The backbone at a tenth, all else alike; detrex's norms undecayed."""
    keys = read_keys(listing)
    is_detrex = 'detrex' in keys['source']
    classes = 80 if is_detrex else 91
    converted = convert_state_dict(numbered_weights(keys), num_classes=classes)
    model, cfg = build(fitting_configs(converted)[0], classes)
    frozen = {
        converted.origins[name]
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad
        and not is_batch_norm(name, converted.state_dict)
    }
    assert frozen == set(keys['frozen_parameters'])
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    norms = {
        f'{name}.{leaf}'
        for name, module in model.named_modules()
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm))
        for leaf in ('weight', 'bias')
    }
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group['params']:
            name = names[id(parameter)]
            seen.add(name)
            rate = 1e-5 if name.startswith('backbone.') else 1e-4
            assert group['lr'] == pytest.approx(rate)
            undecayed = is_detrex and name in norms
            if parameter.requires_grad:
                assert group['weight_decay'] == (0 if undecayed else 1e-4)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert seen >= trained
