import json
import re
from functools import partial
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from torch import Tensor, nn

import project  # noqa: F401
from project.checkpoints.start_checks import check_checkpoint
from project.utils.errors import UserError
from tests.helpers.checkpoints import GOLDENS
from tests.helpers.configs import CONFIGS
from tests.helpers.numerics import (
    HALF,
    check_earlier_layers,
    check_half_precision,
    check_losses_under_autocast,
    check_training_in_bf16,
    count_loss_by_feat,
    waits_in_detection,
    waits_in_training,
)
from tests.helpers.toy import (
    build_model,
    check_detections,
    check_training_step,
    tiny_model_config,
    toy_batch,
)

BASES = {
    'deformable': 'hpr_dino_r50.py',
    'dino': 'hpr_dino_r50.py',
    'align': 'hpr_align-detr_r50.py',
    'ddq': 'hpr_ddq_r50.py',
}


def toy_config(base: str, **changes) -> ConfigDict:
    """A model of HPR with two layers and a small backbone."""
    model = tiny_model_config(f'_base_/models/{BASES[base]}', **changes)
    layer = model.decoder.layer_cfg
    layer.dy_conv_cfg.feat_channels = 8
    layer.regional_ca_cfg.sample_num = 2
    if base == 'deformable':
        model.use_dn = False
    if base == 'align':
        model.bbox_head.all_layers_num_gt_repeat = [2, 1, 2]
    return model


@pytest.fixture(scope='module', params=list(BASES))
def detector(request: pytest.FixtureRequest) -> nn.Module:
    return build_model(toy_config(request.param))


def flat(losses: dict) -> dict[str, Tensor]:
    """One tensor for each loss; some are lists of one for each image."""
    return {
        name: torch.stack(value) if isinstance(value, list) else value
        for name, value in losses.items()
    }


@pytest.mark.slow  # on a CPU that has no such numbers
def test_detections_of_earlier_layers(detector: nn.Module) -> None:
    check_earlier_layers(detector)


def test_training_in_bf16(detector: nn.Module) -> None:
    check_training_in_bf16(detector)


@pytest.mark.parametrize('dtype', HALF)
def test_losses_under_autocast(
    detector: nn.Module, dtype: torch.dtype
) -> None:
    check_losses_under_autocast(detector, dtype)


@pytest.mark.parametrize('dtype', HALF)
def test_half_precision(detector: nn.Module, dtype: torch.dtype) -> None:
    check_half_precision(detector, dtype)


@pytest.mark.parametrize('label', [80, -1])
def test_a_label_that_is_no_class(detector: nn.Module, label: int) -> None:
    batch, samples = toy_batch()
    samples[1].set_metainfo(dict(img_id=17))
    samples[1].gt_instances.labels[0] = label
    with pytest.raises(
        UserError, match=rf'img_id=17 .* label {label}, .* 0 to 79'
    ):
        detector.train().loss(batch, samples)


def test_waits(detector: nn.Module) -> None:
    """The host waits for the matching.

    And in DDQ for each suppression, and to learn how many detections an
    image has.
    """
    in_training, in_detection = {'cpu': 1}, {}
    if type(detector).__name__ == 'HPRDDQDETR':
        in_training['nms'] = 2
        in_detection.update(nms=2, tolist=1)
    assert waits_in_training(detector) == in_training
    assert waits_in_detection(detector) == in_detection


def test_loss_by_feat_of_a_users_head(detector: nn.Module) -> None:
    losses = count_loss_by_feat(detector)
    assert losses.pop('loss_of_user') == 7
    assert losses['hpr_1_loss_cls'] > 0


@pytest.mark.parametrize('num_gts', [(0, 3), (0, 0), (15, 1)])
def test_losses_with_few_and_many_objects(
    detector: nn.Module, num_gts: tuple[int, int]
) -> None:
    """All finite, and a gradient for every parameter."""
    detector.train().zero_grad()
    losses = flat(detector.loss(*toy_batch(num_gts=num_gts)))
    for name, value in losses.items():
        assert value.isfinite().all(), name
    if sum(num_gts) == 0:
        assert all(v.sum() == 0 for n, v in losses.items() if 'bbox' in n)
        assert all(v.sum() == 0 for n, v in losses.items() if '_iou' in n)
    for prefix in ('', 'hpr_0_', 'hpr_1_'):
        assert losses[f'{prefix}loss_cls'] > 0
        assert f'{prefix}d0.loss_iou' in losses
    assert not any('hpr' in name and 'enc' in name for name in losses)
    sum(value.sum() for value in losses.values()).backward()
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_boxes_without_size(detector: nn.Module) -> None:
    """Strong augmentation leaves such; no NaN comes of them."""
    batch, samples = toy_batch()
    for sample in samples:
        boxes = sample.gt_instances.bboxes
        boxes[0, 2:] = boxes[0, :2]
        boxes[1, 2] = boxes[1, 0]
    detector.train().zero_grad()
    losses = flat(detector.loss(batch, samples))
    sum(value.sum() for value in losses.values()).backward()
    assert all(value.isfinite().all() for value in losses.values())
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name


def test_weak_and_strong_copies_are_one_batch(detector: nn.Module) -> None:
    batch, samples = toy_batch()
    detector.train()
    torch.manual_seed(0)
    expected = flat(detector.loss(batch, samples))
    torch.manual_seed(0)
    branches = flat(
        detector.loss(
            dict(strong=batch[1:], weak=batch[:1]),
            dict(strong=samples[1:], weak=samples[:1]),
        )
    )
    torch.testing.assert_close(branches, expected)


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (dict(weak=torch.zeros(1, 3, 8, 8)), "'weak' and 'strong'"),
        (
            dict(weak=torch.zeros(1, 3, 8, 8), strong=torch.zeros(1, 3, 8, 9)),
            'different sizes',
        ),
    ],
)
def test_unfit_branches_are_refused(
    detector: nn.Module, inputs: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        detector.loss(inputs, {name: [] for name in inputs})


def test_detections(detector: nn.Module) -> None:
    batch, samples = toy_batch()
    with torch.no_grad():
        found = detector.eval().predict(batch, samples)
    for sample in found:
        instances = sample.pred_instances
        height, width = sample.ori_shape
        assert len(instances) > 0
        assert (instances.scores.diff() <= 0).all()
        assert (instances.bboxes >= 0).all()
        assert (instances.bboxes[:, 2] <= width).all()
        assert (instances.bboxes[:, 3] <= height).all()


def test_mergers_to_begin_with() -> None:
    """Plain sums, but DDQ's are drawn unless told otherwise."""

    def mergers(config: ConfigDict) -> Tensor:
        model = build_model(config)
        return torch.stack(
            [layer.merger_FFN.weights for layer in model.decoder.layers]
        )

    for base in ('dino', 'align'):
        assert (mergers(toy_config(base)) == 1).all()
    drawn = mergers(toy_config('ddq'))
    bound = (6 / (256 + 3)) ** 0.5
    assert 0.9 * bound < drawn.abs().max() <= bound
    assert (mergers(toy_config('ddq', draw_mergers=False)) == 1).all()


def test_auxiliary_heads_to_begin_with() -> None:
    """DINO's are drawn by themselves, one branch each; DDQ's are copies."""
    for base, are_copies in (('dino', False), ('ddq', True)):
        model = build_model(toy_config(base))
        first, second = (
            head.reg_branches[0][0].weight for head in model.bbox_head_aux
        )
        main = model.bbox_head.reg_branches[0][0].weight
        assert first.equal(second) == are_copies
        assert first.equal(main) == are_copies
        for head in model.bbox_head_aux:
            assert len(head.cls_branches) == len(head.reg_branches) == 2
            assert (head.reg_branches[1][-1].weight == 0).all()
            for branches in (head.cls_branches, head.reg_branches):
                first, second = (branch.state_dict() for branch in branches)
                assert first.keys() == second.keys()
                assert all(first[name].equal(second[name]) for name in first)
                pointers = {p.data_ptr() for p in branches.parameters()}
                assert len(pointers) == len(list(branches.parameters()))


@pytest.mark.parametrize('base', ['dino', 'ddq'])
def test_recomputed_parts_give_the_same(base: str) -> None:
    """Encoder, decoder, neck, and a backbone that counts its batches."""
    plain = build_model(toy_config(base)).double()
    config = toy_config(base, ckpt_backbone=True, ckpt_neck=True)
    config.encoder.num_cp = config.decoder.num_cp = 2
    recomputed = build_model(config).double()
    recomputed.load_state_dict(plain.state_dict())
    batch, samples = toy_batch()
    results = []
    for model in (plain, recomputed):
        model.train()
        norm = model.backbone.bn1.train()  # as with norm_eval=False
        torch.manual_seed(0)
        losses = flat(model.loss(batch.double(), samples))
        sum(value.sum() for value in losses.values()).backward()
        gradients = {n: p.grad for n, p in model.named_parameters()}
        results.append((losses, gradients, dict(model.named_buffers())))
        assert norm.num_batches_tracked == 1
    torch.testing.assert_close(*results, rtol=0, atol=1e-10)


@pytest.mark.parametrize('part', ['backbone', 'neck'])
def test_a_recomputed_part_keeps_less(part: str) -> None:
    def kept(**changes) -> int:
        model = build_model(toy_config('dino', **changes)).train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.numel()), lambda _: None
        ):
            model.extract_feat(torch.rand(1, 3, 64, 64))
        return sum(sizes)

    assert kept(**{f'ckpt_{part}': True}) < 0.95 * kept()


def test_second_names_of_trained_ddq_are_dropped(tmp_path: Path) -> None:
    model = build_model(toy_config('ddq'))
    weights = model.state_dict()
    second = {
        name.replace('bbox_head.', 'decoder.', 1): tensor.clone()
        for name, tensor in weights.items()
        if name.startswith('bbox_head.aux_reg_branches.')
    }
    assert len(second) == 12
    fresh = build_model(toy_config('ddq'), seed=1)
    fresh.load_state_dict({**weights, **second})
    torch.save({**weights, **second}, tmp_path / 'trained.pth')
    check_checkpoint(str(tmp_path / 'trained.pth'), fresh)
    for name, tensor in fresh.state_dict().items():
        assert tensor.equal(weights[name]), name
    next(iter(second.values())).add_(1)
    with pytest.raises(UserError, match='two different tensors'):
        fresh.load_state_dict({**weights, **second})


@pytest.mark.parametrize(
    ('base', 'changes', 'message'),
    [
        ('dino', dict(aux_weights=[0.5]), 'aux_weights'),
        ('dino', dict(as_two_stage=False), 'as_two_stage=True'),
        ('dino', dict(dn_cfg=dict(groups=5)), "takes no 'groups'"),
        ('ddq', dict(use_dn=False), 'use_dn=False'),
        ('ddq', dict(dqs_cfg=dict(type='soft_nms')), "should be 'nms'"),
    ],
)
def test_settings_that_cannot_work(
    base: str, changes: dict, message: str
) -> None:
    config = toy_config(base)
    config.update(changes)
    with pytest.raises(UserError, match=message):
        build_model(config)


def test_align_needs_a_number_for_each_layer() -> None:
    config = toy_config('align')
    config.bbox_head.all_layers_num_gt_repeat = [2, 2]
    with pytest.raises(UserError, match='3 numbers'):
        build_model(config)


LAYOUTS = [
    path.stem.removeprefix('keys_')
    for path in sorted((GOLDENS / 'hpr').glob('keys_*.json'))
    if path.stem != 'keys_index'
]


@pytest.mark.parametrize('layout', LAYOUTS)
def test_released_checkpoints_have_our_names(layout: str) -> None:
    """Names and shapes; but for the second names, see above."""
    keys = json.loads((GOLDENS / 'hpr' / f'keys_{layout}.json').read_text())
    shapes = {
        name: tuple(shape)
        for name, shape in keys.items()
        if not name.startswith('decoder.aux_reg_branches.')
    }
    assert len(keys) - len(shapes) == 36 * layout.endswith('_trained')
    base, backbone = re.match(r'(.+)_(r50|swinL)', layout).groups()
    base = {'align_detr': 'align', 'deformable_detr': 'deformable'}.get(
        base, base
    )
    config = BASES[base].replace('r50', backbone.replace('swinL', 'swin-l'))
    model = Config.fromfile(CONFIGS / '_base_' / 'models' / config).model
    model.backbone.init_cfg = None
    model.use_dn = base != 'deformable'
    # Swin reads its drop path rates off a tensor, which meta has no values of.
    linspace = partial(torch.linspace, device='cpu')
    with (
        mock.patch('torch.linspace', linspace),
        torch.device('meta'),
        DefaultScope.overwrite_default_scope('mmdet'),
    ):
        ours = MODELS.build(model).state_dict()
    assert {n: tuple(t.shape) for n, t in ours.items()} == shapes


def with_refiners(host: str) -> ConfigDict:
    """The toy model of a config, its decoder one of HPR's."""
    fragment = CONFIGS / '_base_' / 'models' / 'proposal_refiner.py'
    refiners = Config.fromfile(fragment).proposal_refiner
    config = Config(dict(model=tiny_model_config(host)))
    config.merge_from_dict(dict(model=refiners.to_dict()))
    model = config.model
    model.decoder.layer_cfg.dy_conv_cfg.feat_channels = 8
    return model


@pytest.mark.parametrize(
    'host',
    [
        'hpr/hpr-h-detr_r50_8xb2-12e_coco.py',
        'hpr/hpr-rank-detr_r50_8xb2-12e_coco.py',
        'deta/deta_r50_improved-baseline_8xb2-50e_coco.py',
        'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco.py',
    ],
)
def test_other_detectors_take_the_refiners(host: str) -> None:
    """By config alone: losses of three heads, gradients everywhere.

    And two copies of every image, which the data re-augmentation makes.
    """
    model = build_model(with_refiners(host)).train()
    for layer in model.decoder.layers:
        assert (layer.merger_SA.weights == 1).all()
        assert (layer.merger_FFN.weights == 1).all()
    batch, samples = toy_batch()
    losses = model.loss(
        dict(weak=batch[:1], strong=batch[1:]),
        dict(weak=samples[:1], strong=samples[1:]),
    )
    plain = {n for n in losses if not n.startswith('aux_')}
    of_decoder = {n for n in plain if 'enc_' not in n}
    for prefix in ('aux_0_', 'aux_1_'):
        names = {n for n in losses if n.startswith(prefix)}
        assert names == {f'{prefix}{n}' for n in of_decoder}
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
    with torch.no_grad():
        found = model.eval().predict(batch, samples)
    assert len(found[0].pred_instances) > 0


def test_regions_of_more_levels_than_there_are() -> None:
    config = toy_config('dino')
    config.decoder.bbox_roi_extractor.featmap_strides = [8, 16, 32, 64, 128]
    with pytest.raises(UserError, match=r'featmap_strides.* 5 .* 4 levels'):
        build_model(config)


@pytest.mark.parametrize('base', ['dino', 'ddq'])
def test_without_samples_no_image_is_padded(base: str) -> None:
    """Whatever strides the extractor is told, as with Swin-L."""
    config = toy_config(base)
    config.decoder.bbox_roi_extractor.featmap_strides = [16, 32, 64, 128]
    model = build_model(config).eval()
    with torch.no_grad():
        for layer in model.bbox_head.reg_branches:
            nn.init.normal_(layer[-1].weight, std=0.1)
        batch, samples = toy_batch(((60, 90), (60, 90)))
        expected = model(batch, samples, mode='tensor')
        torch.testing.assert_close(model(batch, mode='tensor'), expected)


def test_one_ddq_layer_trains() -> None:
    config = toy_config('ddq')
    config.decoder.num_layers = 1
    model = build_model(config)
    check_training_step(model, *toy_batch())
    check_detections(model, *toy_batch())


def test_a_training_that_diverged_is_told() -> None:
    model = build_model(toy_config('dino')).train()
    nn.init.constant_(model.memory_trans_fc.weight, torch.nan)
    with pytest.raises(UserError, match='NaN'):
        model.loss(*toy_batch())
