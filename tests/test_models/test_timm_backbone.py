"""Backbones of timm train in a detector, and learn layer by layer."""

import json
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import RUNNERS

from project.utils.errors import UserError
from tests.helpers.training import toy_config, toy_data

__all__ = ['toy_data']

timm = pytest.importorskip('timm')
pytestmark = pytest.mark.usefixtures('mmdet_scope')

CONVNEXT = dict(type='TimmBackbone', model_name='test_convnext')
VIT = dict(type='TimmBackbone', model_name='test_vit', out_indices=[-1])


def build(config: dict, **changes):
    return MODELS.build(dict(config, **changes))


def test_features_of_stages() -> None:
    backbone = build(CONVNEXT, out_indices=(1, 3)).eval()
    first, last = backbone(torch.rand(2, 3, 64, 96))
    assert [first.shape[1], last.shape[1]] == backbone.out_channels
    assert first.shape[-2:] == (8, 12)
    assert last.shape[-2:] == (2, 3)


def test_a_vit_takes_images_of_any_size() -> None:
    backbone = build(VIT).eval()
    neck = MODELS.build(
        dict(
            type='SimpleFeaturePyramid',
            in_channels=backbone.out_channels,
            out_channels=8,
            scales=(4, 2, 1, 0.5),
            num_outs=5,
        )
    )
    for size, patches in ((64, 4), (70, 5), (33, 3)):
        features = backbone(torch.rand(1, 3, 64, size))
        assert features[0].shape[-2:] == (4, patches)
        shapes = [x.shape[-2:] for x in neck(features)]
        assert shapes[:3] == [(4 * 2**n, patches * 2**n) for n in (2, 1, 0)]
        assert shapes[3] == (2, patches // 2)
        assert len(shapes) == 5


@pytest.mark.parametrize(
    ('config', 'changes'),
    [
        (CONVNEXT, dict(out_indices=(2, 3))),
        (VIT, dict()),
    ],
)
def test_weights_of_a_file(config, changes, tmp_path) -> None:
    torch.manual_seed(0)
    source = timm.create_model(config['model_name'])
    file = tmp_path / 'weights.pth'
    torch.save(source.state_dict(), file)
    torch.manual_seed(1)
    backbone = build(config, pretrained=str(file), **changes)
    given = {p.double().sum().item() for p in source.parameters()}
    names = dict(backbone.named_parameters())

    def num_alike() -> int:
        sums = (p.double().sum().item() for p in names.values())
        return sum(value in given for value in sums)

    drawn = num_alike()
    backbone.init_weights()
    assert num_alike() == len(names) > drawn


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(model_name='convnxt'), "'convnxt', which timm"),
        (dict(pretrained='no/such.pth'), 'no/such.pth, which does not exist'),
    ],
)
def test_what_is_refused(changes, words) -> None:
    with pytest.raises(UserError, match=words):
        build(CONVNEXT, **changes).init_weights()


def test_without_timm(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(UserError, match='pip install timm'):
        build(CONVNEXT)


def test_each_layer_has_its_learning_rate() -> None:
    model = torch.nn.Module()
    model.backbone = build(CONVNEXT)
    model.head = torch.nn.Linear(2, 2)
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='LayerDecayOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
            paramwise_cfg=dict(
                layer_decay=0.5,
                custom_keys=dict(backbone=dict(lr_mult=0.1)),
                norm_decay_mult=0.0,
            ),
        ),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {
        names[id(group['params'][0])]: group['lr']
        for group in wrapper.optimizer.param_groups
    }
    layers = model.backbone.layer_ids()
    assert min(layers.values()) == 0
    top = max(layers.values())
    assert top > 3
    for name, layer in layers.items():
        expected = 0.1 * 0.5 ** (top + 1 - layer)
        assert rates[f'backbone.{name}'] == pytest.approx(expected)
    assert rates['head.weight'] == 1
    stem = min(layers, key=layers.get)
    assert 'stem' in stem


@pytest.mark.parametrize(
    ('backbone', 'decay', 'words'),
    [
        (dict(type='ResNet', depth=18), 0.5, 'ResNet does not'),
        (CONVNEXT, None, 'layer_decay is None'),
        (CONVNEXT, 1.5, 'layer_decay is 1.5'),
    ],
)
def test_no_layer_decay(backbone, decay, words) -> None:
    model = torch.nn.Module()
    model.backbone = MODELS.build(backbone)
    with pytest.raises(UserError, match=words):
        build_optim_wrapper(
            model,
            dict(
                constructor='LayerDecayOptimWrapperConstructor',
                optimizer=dict(type='AdamW', lr=1.0),
                paramwise_cfg=dict(layer_decay=decay),
            ),
        )


def with_backbone(toy_data: Path, work_dir: Path, is_vit: bool) -> Config:
    """The toy detector on a backbone of timm."""
    cfg = toy_config(
        toy_data,
        work_dir,
        train_cfg__max_epochs=3,
        train_cfg__val_interval=3,
        optim_wrapper__optimizer__lr=2e-3,
        optim_wrapper__constructor='LayerDecayOptimWrapperConstructor',
        optim_wrapper__paramwise_cfg__layer_decay=0.8,
    )
    if is_vit:
        cfg.model.backbone = dict(VIT)
        cfg.model.neck = dict(
            type='SimpleFeaturePyramid',
            in_channels=64,
            out_channels=32,
            scales=(1, 0.5),
        )
    else:
        cfg.model.backbone = dict(CONVNEXT, out_indices=(2, 3))
        cfg.model.neck.in_channels = [48, 64]
    return cfg


@pytest.mark.parametrize('is_vit', [False, True])
def test_it_trains(toy_data, tmp_path, is_vit) -> None:
    cfg = with_backbone(toy_data, tmp_path, is_vit)
    RUNNERS.build(cfg).train()
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [entry['loss'] for entry in entries if 'loss' in entry]
    assert losses[-1] < 0.95 * losses[0]


def test_a_checkpoint_replaces_the_pretrained_weights(
    toy_data, tmp_path
) -> None:
    cfg = with_backbone(toy_data, tmp_path, False)
    cfg.train_cfg.max_epochs = 1
    RUNNERS.build(cfg).train()
    cfg.train_cfg.max_epochs = 2
    cfg.model.backbone.pretrained = True  # there is none
    cfg.resume = True
    RUNNERS.build(cfg).train()
    logs = ''.join(x.read_text() for x in tmp_path.glob('*/*.log'))
    assert 'the checkpoint has all weights of model.backbone' in logs
