# Copyright (c) mmdetr authors. All rights reserved.
"""Checkpoints with this project's names become starts for other classes."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from project.checkpoints.class_tensors import linear_weight, prior_bias
from project.checkpoints.conversion import (
    convert_state_dict,
    for_finetuning,
    with_our_names,
)
from project.checkpoints.converter import convert_file
from project.checkpoints.layouts.own_names import is_dino, shared_branches
from project.checkpoints.model_layout import build_on_meta
from project.checkpoints.reading import read_weights
from project.checkpoints.shipped_configs import fitting_configs
from project.checkpoints.start_checks import check_checkpoint
from project.preflight.variables import resolve_config
from project.utils.errors import UserError
from project.utils.paths import config_path
from tests.helpers.checkpoints import (
    GOLDENS,
    key_listings,
    numbered_weights,
    read_keys,
)
from tests.helpers.toy import tiny_model_config

LABELS = 'dn_query_generator.label_embedding.weight'
DDQ = 'hpr/hpr-ddq_r50_8xb2-88k_coco.py'
# For each layout of names one config, and how many of its tensors start anew
# with two decoder layers. The first stage's two keep their rows, if it tells
# no classes.
TOYS = {
    'h_detr/h-detr_r50_8xb2-12e_coco.py': 4,
    'h_detr/h-detr_r50_one-stage-refine_8xb2-50e_coco.py': 4,
    'h_detr/h-detr_r50_one-stage-baseline_8xb2-50e_coco.py': 4,
    'rank_detr/rank-detr_r50_8xb2-12e_coco.py': 6,
    'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py': 4,
    'deta/deta_r50_5scale_8xb2-12e_coco.py': 4,
    'dn_detr/dn-detr_r50_8xb2-50e_coco.py': 3,
    'dn_detr/dn-detr_r50-dc5_3pat_16xb1-12e_coco.py': 3,
    'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco.py': 5,
    'dn_detr/dn-deformable-encoder-detr_r50_3pat_16xb1-50e_coco.py': 3,
    'align_detr/align-detr_r50_8xb2-12e_coco.py': 7,
    'hpr/hpr-deformable-detr_r50_8xb2-12e_coco.py': 14,
    'hpr/hpr-dino_r50_8xb2-12e_coco.py': 15,
    'hpr/hpr-align-detr_r50_8xb2-12e_coco.py': 15,
    # One more for dense queries in the first stage, two in each head.
    DDQ: 29,
    'hpr/hpr-h-detr_r50_8xb2-12e_coco.py': 12,
    'hpr/hpr-rank-detr_r50_8xb2-12e_coco.py': 18,
}


def toy_model(config: str, num_classes: int) -> dict:
    """The model of a small config for some classes."""
    cfg = Config(dict(model=tiny_model_config(config)))
    cfg.classes = [str(i) for i in range(num_classes)]
    model = resolve_config(cfg).model
    model.test_cfg.max_per_img = 10
    return model


def random_weights(model: dict) -> dict[str, torch.Tensor]:
    """As a training might leave them: of one module the same everywhere."""
    generator = torch.Generator().manual_seed(0)
    values: dict[int, torch.Tensor] = {}
    state = build_on_meta(model).state_dict(keep_vars=True)
    return {
        name: values.setdefault(
            id(tensor),
            torch.rand(tensor.shape, generator=generator).to(tensor.dtype),
        )
        for name, tensor in state.items()
    }


def save(path: Path, weights: dict) -> Path:
    torch.save(dict(meta=dict(epoch=12), state_dict=weights), path)
    return path


def of_first_stage(name: str) -> bool:
    """Whether a classifier of a toy belongs to no decoder layer."""
    return name.startswith('bbox_head.cls_branches.2.')


@pytest.mark.parametrize(('config', 'num_fresh'), TOYS.items())
def test_eighty_classes_become_three(
    tmp_path: Path, config: str, num_fresh: int
) -> None:
    weights = random_weights(toy_model(config, 80))
    source = save(tmp_path / 'w80.pth', weights)
    before = source.read_bytes()
    three = toy_model(config, 3)
    Config(dict(model=three)).dump(tmp_path / 'three.py')
    target = tmp_path / 'w3.pth'
    converted, _ = convert_file(
        source, target, config=tmp_path / 'three.py', num_classes=3
    )
    assert source.read_bytes() == before

    tuned = read_weights(target)
    build_on_meta(three).load_state_dict(tuned, strict=True, assign=True)
    changed = {k for k in tuned if not torch.equal(tuned[k], weights[k])}
    assert {line.partition(':')[0] for line in converted.renewed} == changed
    fresh = {line.removesuffix(': fresh') for line in converted.renewed}
    fresh &= changed
    assert len(fresh) == num_fresh
    has_first_stage = 'memory_trans_fc.weight' in weights
    keeps_first_stage = has_first_stage and not is_dino(weights)
    assert len(changed - fresh) == 2 * keeps_first_stage
    for name in changed:
        check_value(name, tuned[name], weights[name], name in fresh)


def check_value(
    name: str, new: torch.Tensor, old: torch.Tensor, is_fresh: bool
) -> None:
    """Whether a tensor starts as the method's or keeps what carries over."""
    if not is_fresh:
        assert of_first_stage(name)
        assert torch.equal(new, old[:3])
    elif name == LABELS:
        # DN-DETR's table has a row for "no object", DINO's has not.
        assert len(new) - 3 == len(old) - 80
        assert torch.equal(new[3:], old[80:])
        assert new[:3].min() < 0  # the old ones are not
    elif 'rank_adaptive' in name:
        assert (new == 0).all()
    elif name.endswith('bias'):
        assert torch.equal(new, prior_bias(new.shape))
    else:
        assert torch.equal(new, linear_weight(new.shape))


@pytest.mark.parametrize('config', TOYS)
def test_what_is_dino_follows_from_the_names(config: str) -> None:
    """The two facts about a method that the layouts stand for."""
    model = build_on_meta(toy_model(config, 80))
    dino = is_dino(model.state_dict())
    if getattr(model, 'as_two_stage', False):
        assert dino != model.bbox_head.first_stage_is_class_agnostic
    if LABELS in model.state_dict():
        assert len(model.state_dict()[LABELS]) == (80 if dino else 81)


@pytest.mark.parametrize('listing', key_listings())
def test_the_official_file_gives_the_same(listing: str) -> None:
    official = convert_state_dict(numbered_weights(read_keys(listing)))
    ours = with_our_names(official.state_dict)
    assert ours.num_classes == official.num_classes
    assert ours.tied == official.tied
    assert ours.architecture == official.architecture
    assert set(fitting_configs(official)) <= set(fitting_configs(ours))
    expected, found = for_finetuning(official, 5), for_finetuning(ours, 5)
    assert set(found.renewed) == set(expected.renewed)
    assert found.state_dict.keys() == expected.state_dict.keys()
    for name, tensor in expected.state_dict.items():
        assert found.state_dict[name].equal(tensor)


HPR = {
    'dino_r50': 'hpr-dino_r50_8xb2-12e',
    'dino_swinL': 'hpr-dino_swin-l_16xb1-88k',
    'deformable_detr_r50': 'hpr-deformable-detr_r50_8xb2-12e',
    'align_detr_r50': 'hpr-align-detr_r50_8xb2-12e',
    # Swin-L's names are those of DINO's.
    'align_detr_swinL': 'hpr-dino_swin-l_16xb1-88k',
    'ddq_r50': 'hpr-ddq_r50_8xb2-88k',
    'ddq_r50_trained': 'hpr-ddq_r50_8xb2-88k',
    'ddq_swinL_trained': 'hpr-ddq_swin-l_16xb1-88k',
}


@pytest.mark.parametrize(('listing', 'config'), HPR.items())
def test_published_weights_of_hpr_find_their_config(
    tmp_path: Path, listing: str, config: str
) -> None:
    source = save(tmp_path / 'hpr.pth', hpr_weights(listing))
    target = tmp_path / 'start.pth'
    converted, configs = convert_file(source, target, num_classes=5)
    assert configs[0] == f'configs/hpr/{config}_coco.py'
    assert len(converted.aliases) == (36 if 'trained' in listing else 0)
    assert all(line.endswith(': fresh') for line in converted.renewed)
    cfg = Config.fromfile(config_path(f'hpr/{config}_coco.py'))
    cfg.classes = tuple('abcde')
    check_checkpoint(str(target), build_on_meta(resolve_config(cfg).model))


def hpr_weights(listing: str) -> dict[str, torch.Tensor]:
    """Weights of the published names and shapes, second names equal."""
    names = json.loads((GOLDENS / f'hpr/keys_{listing}.json').read_text())
    second, first = 'decoder.aux_reg_branches.', 'bbox_head.aux_reg_branches.'
    aliases = {k: k.replace(second, first) for k in names if second in k}
    weights = numbered_weights(dict(state_dict=names, aliases=aliases))
    return weights | {
        name: torch.zeros(names[name]) for name in names.keys() - weights
    }


def test_second_names_that_differ_are_refused() -> None:
    weights = hpr_weights('ddq_r50_trained')
    name = 'decoder.aux_reg_branches.3.2.bias'
    weights[name] = weights[name] + 1
    with pytest.raises(
        UserError,
        match=rf'1 pairs .* differ: {name} and bbox_head\.aux_reg_branches\.3',
    ):
        with_our_names(weights)


def test_methods_of_others_are_refused() -> None:
    weights = {'bbox_head.retina_cls.weight': torch.zeros(720, 256, 3, 3)}
    with pytest.raises(UserError, match='no method of this project'):
        with_our_names(weights)


def test_a_class_tensor_of_another_name_is_refused(tmp_path: Path) -> None:
    """The model tells what no table knows."""
    config = next(iter(TOYS))
    weights = random_weights(toy_model(config, 80))
    for leaf in ('weight', 'bias'):
        name = f'bbox_head.cls_branches.1.{leaf}'
        weights[name.replace('cls', 'score')] = weights.pop(name)
    source = save(tmp_path / 'w80.pth', weights)
    Config(dict(model=toy_model(config, 3))).dump(tmp_path / 'three.py')
    options = dict(config=tmp_path / 'three.py', num_classes=3)
    with pytest.raises(
        UserError,
        match=r'w80\.pth: .*2 missing: bbox_head\.cls_branches\.1\.weight.*'
        r'2 unknown: bbox_head\.score_branches',
    ):
        convert_file(source, tmp_path / 'w3.pth', **options)
    assert not (tmp_path / 'w3.pth').exists()


def test_a_table_of_another_size_is_refused(tmp_path: Path) -> None:
    """Renewed is what counts as many classes as the others."""
    config = 'hpr/hpr-dino_r50_8xb2-12e_coco.py'
    weights = random_weights(toy_model(config, 80))
    weights[LABELS] = torch.zeros(81, 256)
    source = save(tmp_path / 'w80.pth', weights)
    Config(dict(model=toy_model(config, 3))).dump(tmp_path / 'three.py')
    with pytest.raises(
        UserError, match=rf'1 of another shape: {LABELS} \[81, 256\] instead'
    ):
        convert_file(
            source,
            tmp_path / 'w3.pth',
            config=tmp_path / 'three.py',
            num_classes=3,
        )


def test_heads_are_shared_if_all_layers_have_the_same() -> None:
    plain = 'h_detr/h-detr_r50_one-stage-baseline_8xb2-50e_coco.py'
    weights = random_weights(toy_model(plain, 80))
    assert len(shared_branches(weights)) == 2 * 8
    name = 'bbox_head.reg_branches.1.4.bias'
    weights[name] = weights[name] + 1
    assert not shared_branches(weights)
    # Untrained, those of two stages are equal, too.
    two_stage = {
        name: torch.zeros_like(tensor)
        for name, tensor in random_weights(toy_model(DDQ, 80)).items()
    }
    assert not shared_branches(two_stage)
