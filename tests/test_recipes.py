"""Shipped configs set what the official code sets."""

import inspect
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from mmdet.models.layers import SinePositionalEncoding
from mmdet.models.task_modules.assigners import FocalLossCost

from project.models.task_modules import HighOrderIoUCost, TopKIoUAssigner
from tests.helpers import recipes as helper
from tests.helpers.configs import CONFIGS, ROOT, read_config
from tests.helpers.recipes import (
    Defaults,
    Recipe,
    differences,
    mutations,
    parameter_groups,
    read_recipes,
)

pytestmark = pytest.mark.usefixtures('mmdet_scope')

METHODS = sorted(path.stem for path in helper.FOLDER.glob('*.json'))
NAMES = [(m, name) for m in METHODS for name in read_recipes(m)]

# What is otherwise on purpose: the official value, ours, and words of the
# place that says why.
_SAME_NUMBERS = (
    'CocoMetric',
    'FastCocoMetric',
    'docs/performance.md',
    'All numbers are the same, per class too.',
)
DEVIATIONS = {
    'model.test_cfg.clip_bboxes': (
        False,
        True,
        'docs/data.md',
        'Detections are clipped to their image',
    ),
    **{
        f'train_dataloader.dataset.{transform}.type': (
            official,
            ours,
            'docs/performance.md',
            'with the same pixels, boxes and labels',
        )
        for transform, official, ours in (
            ('dataset.pipeline.1', 'LoadAnnotations', 'LoadRegionAnnotations'),
            ('pipeline.1', 'CopyPaste', 'RegionCopyPaste'),
        )
    },
    **dict.fromkeys(
        (
            'test_dataloader.dataset.pipeline.1.type',
            *(
                f'train_dataloader.dataset.pipeline.3.transforms.{resize}'
                '.resize_type'
                for resize in ('0.0', '1.0', '1.2')
            ),
        ),
        (
            'Resize',
            'AnyDepthResize',
            'docs/data.md',
            "the same pixels as mmdet's `Resize` for 8-bit images",
        ),
    ),
    'val_evaluator.type': _SAME_NUMBERS,
    'test_evaluator.type': _SAME_NUMBERS,
}
# Shipped configs that no official one stands behind, and why.
OURS = {
    'custom/': "users' data",
    'demo/': 'for the demo',
    'deta/deta_swin-l_5scale_16xb1-24e_objects365': 'was never published',
    'dn_detr/dn-deformable-detr_r50_8xb2-12e_coco.py': 'not of 12 epochs',
    'h_detr/h-detr_r50_one-stage_8xb2-50e': 'cannot run in detrex',
    'align_detr/align-detr_r50_level-nms_': 'an unpublished combination',
    'hpr/hpr-dino_r50_rank-loss_': 'an unpublished combination',
    'hpr/hpr-h-detr_': 'an unpublished combination',
    'hpr/hpr-rank-detr_': 'an unpublished combination',
}


def shipped_names() -> list[str]:
    return sorted(
        str(path.relative_to(CONFIGS))
        for path in CONFIGS.rglob('*.py')
        if '_base_' not in path.parts
    )


def test_every_config_has_a_recipe_or_a_reason() -> None:
    with_recipe = {name for _, name in NAMES}
    for name in shipped_names():
        own = [start for start in OURS if name.startswith(start)]
        assert (name in with_recipe) != bool(own), name
    assert with_recipe <= set(shipped_names())
    for start in OURS:
        assert any(name.startswith(start) for name in shipped_names()), start


def resizes_with_pillow(recipe: Recipe) -> bool:
    """OpenCV resizes images of any depth."""
    backend = recipe.settings.get('test_dataloader.dataset.pipeline.1.backend')
    return backend == 'pillow'


@pytest.mark.parametrize('method', METHODS)
def test_settings_are_the_official_ones(method: str) -> None:
    """All but the listed deviations, each of which there has to be."""
    for name, recipe in read_recipes(method).items():
        found = differences(recipe, read_config(name).to_dict())
        expected = {
            setting: (official, ours)
            for setting, (official, ours, *_) in DEVIATIONS.items()
            if recipe.settings.get(setting) == official
            and (official != 'Resize' or resizes_with_pillow(recipe))
        }
        assert found == expected, (name, recipe.official)


def test_deviations_are_documented() -> None:
    for *_, place, words in DEVIATIONS.values():
        text = ' '.join((ROOT / place).read_text().split())
        assert words in text


@pytest.mark.parametrize('method', METHODS)
def test_any_other_setting_is_seen(method: str) -> None:
    """Each setting of the first config is changed, one by one."""
    name, recipe = next(iter(read_recipes(method).items()))
    tree = read_config(name).to_dict()
    defaults = Defaults(read_config(name).to_dict())
    before = differences(recipe, tree, defaults)
    count = 0
    for setting in mutations(recipe, tree):
        if setting not in before:
            assert setting in differences(recipe, tree, defaults)
            count += 1
    assert count >= 100
    assert differences(recipe, tree, defaults) == before
    assert tree == read_config(name).to_dict()


@pytest.mark.parametrize(
    ('owner', 'parameter', 'config', 'setting'),
    [
        (
            FocalLossCost,
            'gamma',
            'h_detr/h-detr_r50_8xb2-12e_coco.py',
            'model.train_cfg.assigner.match_costs.0.gamma',
        ),
        (
            SinePositionalEncoding,
            'temperature',
            'deta/deta_r50_5scale_8xb2-12e_coco.py',
            'model.positional_encoding.temperature',
        ),
        (
            torch.optim.AdamW,
            'betas',
            'dn_detr/dn-detr_r50_8xb2-50e_coco.py',
            'optim_wrapper.optimizer.betas',
        ),
        (
            TopKIoUAssigner,
            'one_gt_per_box',
            'deta/deta_r50_5scale_8xb2-12e_coco.py',
            'model.train_cfg.first_stage_assigner.one_gt_per_box',
        ),
        (
            HighOrderIoUCost,
            'eps',
            'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
            'model.train_cfg.assigner.late_match_costs.0.eps',
        ),
    ],
)
def test_another_default_of_a_class_is_seen(
    owner: type,
    parameter: str,
    config: str,
    setting: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = read_recipes(config.split('/')[0])[config]
    tree = read_config(config).to_dict()
    assert setting in recipe.settings
    assert setting not in differences(recipe, tree)

    signature = inspect.signature(owner.__init__)
    parameters = dict(signature.parameters)
    parameters[parameter] = parameters[parameter].replace(default='other')
    other = signature.replace(parameters=list(parameters.values()))
    monkeypatch.setattr(owner.__init__, '__signature__', other, raising=False)
    helper.signature_of.cache_clear()
    try:
        found = differences(recipe, tree)
    finally:
        helper.signature_of.cache_clear()
    assert found[setting][1] == 'other'


def test_a_setting_that_nothing_reads_is_no_default() -> None:
    config = read_config('h_detr/h-detr_r50_8xb2-12e_coco.py')
    defaults = Defaults(config.to_dict())
    with pytest.raises(LookupError, match='nothing tells the default'):
        defaults.of('whatever.it.may.be')
    assert defaults.of('model.bbox_head.no_such_thing') is None


@pytest.mark.parametrize('method', METHODS)
def test_published_figures(method: str) -> None:
    """The AP of the metafile is what the source published."""
    text = (CONFIGS / method / 'metafile.yml').read_text()
    models = {
        Path(model['Config']).name: model
        for model in yaml.safe_load(text)['Models']
    }
    for name, recipe in read_recipes(method).items():
        results = models[Path(name).name].get('Results', [])
        figures = [result['Metrics']['box AP'] for result in results]
        published = recipe.facts.get('box_AP')
        assert figures == ([] if published is None else [published]), name


def _groups() -> list:
    """Configs with the official groups, one of each method not slow."""
    found, seen = [], set()
    for method, name in NAMES:
        if 'param_groups' in read_recipes(method)[name].facts:
            marks = [pytest.mark.slow] if method in seen else []
            found.append(pytest.param(method, name, marks=marks, id=name))
            seen.add(method)
    return found


@pytest.mark.parametrize(('method', 'name'), _groups())
def test_parameter_groups_are_the_official_ones(
    method: str, name: str
) -> None:
    facts = read_recipes(method)[name].facts
    found = parameter_groups(read_config(name), facts.get('num_classes', 80))
    official = sorted(
        facts['param_groups'], key=lambda g: (g['lr'], g['weight_decay'])
    )
    assert found == official


def test_groups_see_their_settings() -> None:
    """Any rate or decay that is changed for some parameters shows."""
    name = 'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py'
    config = read_config(name)
    before = parameter_groups(config, 80)
    assert Counter(g['lr'] for g in before) == {1e-4: 2, 1e-5: 1}
    for change in (
        dict(norm_decay_mult=1.0),
        dict(bias_decay_mult=0.0),
        dict(bias_lr_mult=2.0),
        dict(custom_keys={'backbone': dict(lr_mult=0.2)}),
        dict(custom_keys={'bbox_head': dict(lr_mult=0.1)}),
    ):
        other = config.copy()
        other.optim_wrapper = dict(
            config.optim_wrapper,
            paramwise_cfg=dict(config.optim_wrapper.paramwise_cfg, **change),
        )
        assert parameter_groups(other, 80) != before
