"""What every detector does, whatever its method.

HPR's, whose losses may be lists, are tested in test_hpr_detr.py.
"""

import copy

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

import project  # noqa: F401
from project.preflight.fast_runtime import apply_checkpointing
from project.utils.errors import UserError
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

CONFIGS = {
    'align': 'align_detr/align-detr_r50_8xb2-12e_coco.py',
    'align-nms': 'align_detr/align-detr_r50_level-nms_8xb2-12e_coco.py',
    'anchor': 'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py',
    'deta': 'deta/deta_r50_5scale_8xb2-12e_coco.py',
    'deta-baseline': 'deta/deta_r50_improved-baseline_8xb2-50e_coco.py',
    'dn': 'dn_detr/dn-detr_r50_8xb2-50e_coco.py',
    'dn-detrex': 'dn_detr/dn-detr_r50_8xb2-50e_coco-detrex.py',
    'dn-deformable': 'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco.py',
    'dn-deformable-detrex': (
        'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco-detrex.py'
    ),
    'dn-encoder': (
        'dn_detr/dn-deformable-encoder-detr_r50_3pat_16xb1-50e_coco.py'
    ),
    'h': 'h_detr/h-detr_r50_8xb2-12e_coco.py',
    'rank': 'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
}
OF_DECODER = ('', 'd0.')
LOSSES = {
    'align': (*OF_DECODER, 'dn_', 'd0.dn_', 'enc_'),
    'anchor': OF_DECODER,
    'deta': (*OF_DECODER, 'enc_'),
    'dn': (*OF_DECODER, 'dn_', 'd0.dn_'),
    'h': (*OF_DECODER, 'one2many_', 'd0.one2many_', 'enc_'),
    'rank': (*OF_DECODER, 'one2many_', 'd0.one2many_', 'enc_'),
}
"""What stands before the names of the losses of a method."""


@pytest.fixture(scope='module', params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope='module')
def detector(name: str) -> nn.Module:
    return build_model(toy_config(name))


def toy_config(name: str, **changes) -> ConfigDict:
    return tiny_model_config(CONFIGS[name], **changes)


def loss_names(prefixes: tuple[str, ...]) -> set[str]:
    terms = ('loss_cls', 'loss_bbox', 'loss_iou')
    return {prefix + term for prefix in prefixes for term in terms}


@pytest.mark.parametrize('num_gts', [(3, 2), (0, 3), (0, 0), (60, 1)])
def test_few_and_many_objects(
    name: str, detector: nn.Module, num_gts: tuple[int, int]
) -> None:
    batch, samples = toy_batch(num_gts=num_gts)
    losses = check_training_step(detector, batch, samples)
    assert losses.keys() == loss_names(LOSSES[name.partition('-')[0]])
    for name, value in losses.items():
        background = name.endswith('loss_cls') and 'dn_' not in name
        assert (value > 0) == (background or any(num_gts)), name
    check_detections(detector, batch, samples)


def test_the_loss_of_validation(detector: nn.Module) -> None:
    """It has the terms of the queries that detect."""
    with torch.no_grad():
        losses = detector.eval().loss(*toy_batch())
    assert losses.keys() == loss_names(OF_DECODER)
    assert all(value > 0 for value in losses.values())


def test_one_class(name: str) -> None:
    config = toy_config(name)
    config.bbox_head.num_classes = 1
    config.test_cfg.max_per_img = 12
    model = build_model(config)
    batch, samples = toy_batch(num_classes=1)
    check_training_step(model, batch, samples)
    found = check_detections(model, batch, samples)
    assert all((instances.labels == 0).all() for instances in found)


def test_a_copy_is_independent(detector: nn.Module) -> None:
    """As the hook for averaged weights makes one."""
    twin = copy.deepcopy(detector).eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        original, _ = detector.eval()(*toy_batch(), mode='tensor')
        zeroed, _ = twin(*toy_batch(), mode='tensor')
    assert original.abs().sum() > 0
    assert zeroed.abs().sum() == 0


def test_recomputed_layers_keep_names_and_losses(name: str) -> None:
    plain = build_model(toy_config(name))
    config = Config(
        dict(model=toy_config(name), activation_checkpointing=True)
    )
    apply_checkpointing(config)
    assert config.model.encoder.num_cp == config.model.decoder.num_cp == 2
    assert config.model.backbone.with_cp
    recomputed = build_model(config.model)
    assert list(plain.state_dict()) == list(recomputed.state_dict())
    results = []
    for model in (plain, recomputed):
        torch.manual_seed(0)  # of the noise, where there is one
        losses = model.train().loss(*toy_batch())
        sum(losses.values()).backward()
        results.append(losses)
    torch.testing.assert_close(*results)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(
            recomputed.get_parameter(name).grad,
            parameter.grad,
            rtol=1e-4,
            atol=1e-6,
        )


def test_autocast(detector: nn.Module) -> None:
    """Losses are finite and every parameter is trained."""
    with torch.autocast('cpu', dtype=torch.bfloat16):
        check_training_step(detector, *toy_batch())


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


@pytest.mark.parametrize(('label', 'training'), [(80, True), (-1, False)])
def test_a_label_that_is_no_class(
    detector: nn.Module, label: int, training: bool
) -> None:
    """It would train a class of the query before or behind it."""
    batch, samples = toy_batch()
    samples[1].set_metainfo(dict(img_path='second.jpg'))
    samples[1].gt_instances.labels[0] = label
    with pytest.raises(
        UserError, match=rf"'second.jpg' .* label {label}, .* 0 to 79"
    ):
        detector.train(training).loss(batch, samples)


def test_waits(name: str, detector: nn.Module) -> None:
    """The host waits for the matching, and for nothing in a loop.

    But suppression does, and in DETA's detection there are two; then the
    number of detections of the images is read.
    """
    in_training, in_detection = {'cpu': 1}, {}
    if name in ('align-nms', 'deta'):
        in_training['nms'] = in_detection['nms'] = 1
    if name == 'deta':
        in_detection.update(nms=2, tolist=1)
    assert waits_in_training(detector) == in_training
    assert waits_in_detection(detector) == in_detection


def test_loss_by_feat_of_a_users_head(detector: nn.Module) -> None:
    losses = count_loss_by_feat(detector)
    assert losses.pop('loss_of_user') == 7
    assert losses['loss_cls'] > 0


@torch.no_grad()
def test_grey_images(detector: nn.Module) -> None:
    """One channel is seen as three equal ones."""
    _, samples = toy_batch(((64, 96), (64, 96)))
    grey = torch.arange(2 * 64 * 96.0).reshape(2, 1, 64, 96) % 251
    found = [
        detector.eval().test_step(
            dict(inputs=list(images), data_samples=copy.deepcopy(samples))
        )
        for images in (grey, grey.repeat(1, 3, 1, 1))
    ]
    for ours, expected in zip(*found, strict=True):
        boxes = ours.pred_instances.bboxes
        assert boxes.numel()
        assert boxes.equal(expected.pred_instances.bboxes)


class TensorMode(nn.Module):
    """A detector as export takes it: one tensor in, tensors out."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: torch.Tensor) -> tuple:
        return self.detector(batch, mode='tensor')


@torch.no_grad()
def test_tensor_mode(detector: nn.Module) -> None:
    """Without data samples no image is padded."""
    batch, samples = toy_batch(((64, 96), (64, 96)))
    found = detector.eval()(batch, mode='tensor')
    torch.testing.assert_close(
        found, detector(batch, samples, mode='tensor'), equal_nan=True
    )


@pytest.mark.parametrize(
    'name', ['anchor', 'dn', 'dn-deformable', 'h', 'rank']
)
@torch.no_grad()
def test_export(name: str) -> None:
    """The graph computes the same, and the detector goes on as before."""
    model = TensorMode(build_model(toy_config(name)).eval())
    batch, _ = toy_batch()
    exported = torch.export.export(model, (batch,), strict=False).module()
    for ours, theirs in zip(exported(batch), model(batch), strict=True):
        assert type(theirs) is torch.Tensor
        torch.testing.assert_close(ours, theirs)
