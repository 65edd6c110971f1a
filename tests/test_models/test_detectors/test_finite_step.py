"""A step stops at the first number that is none, whatever the method."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from mmdet.models.detectors import BaseDetector
from mmengine.config import ConfigDict
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

import project  # noqa: F401
from project.utils.errors import UserError
from tests.helpers.toy import build_model, tiny_model_config, toy_batch

CONFIGS = {
    'align': 'align_detr/align-detr_r50_8xb2-12e_coco.py',
    'anchor': 'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py',
    'deta': 'deta/deta_r50_5scale_8xb2-12e_coco.py',
    'dn': 'dn_detr/dn-detr_r50_8xb2-50e_coco.py',
    'dn-deformable': 'dn_detr/dn-deformable-detr_r50_8xb2-50e_coco.py',
    'h': 'h_detr/h-detr_r50_8xb2-12e_coco.py',
    'hpr-ddq': 'hpr/hpr-ddq_r50_8xb2-88k_coco.py',
    'hpr-dino': 'hpr/hpr-dino_r50_8xb2-12e_coco.py',
    'rank': 'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
}


def toy_config(name: str) -> ConfigDict:
    config = tiny_model_config(CONFIGS[name])
    if name.startswith('hpr'):
        config.decoder.layer_cfg.dy_conv_cfg.feat_channels = 8
    return config


SLOW = {'align', 'dn-deformable', 'hpr-ddq', 'hpr-dino'}


@pytest.fixture(
    scope='module',
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in CONFIGS
    ],
)
def detector(request: pytest.FixtureRequest) -> nn.Module:
    return build_model(toy_config(request.param)).train()


@pytest.fixture
def data() -> dict[str, Any]:
    inputs, samples = toy_batch()
    for index, sample in enumerate(samples):
        sample.set_metainfo(dict(img_path=f'photos/{index}.jpg'))
    return dict(inputs=inputs, data_samples=samples)


class Steps(OptimWrapper):
    """Counts the steps instead of doing them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(torch.optim.SGD(model.parameters(), lr=0.0))
        self.num_steps = 0

    def update_params(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self.num_steps += 1


def step(detector: nn.Module, data: dict) -> dict[str, Tensor]:
    """A training step on data that needs no preprocessing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        losses = detector(**data, mode='loss')
    total, values = detector.parse_losses(losses)
    torch.testing.assert_close(total, values['loss'])
    return values


@contextmanager
def broken_output(module: nn.Module) -> Iterator[None]:
    """Have a module give NaN."""
    handle = module.register_forward_hook(
        lambda module, inputs, output: output * torch.nan
    )
    yield
    handle.remove()


@contextmanager
def broken_value(tensor: Tensor, value: float) -> Iterator[None]:
    """Write a number into the first place of a tensor."""
    kept = tensor.detach().clone()
    with torch.no_grad():
        tensor.view(-1)[0] = value
    yield
    with torch.no_grad():
        tensor.copy_(kept)


def test_training(detector: nn.Module, data: dict) -> None:
    """The sentence names losses, and where their numbers came from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        losses = detector.loss(
            batch_inputs=data['inputs'],
            batch_data_samples=data['data_samples'],
        )
    _, expected = BaseDetector.parse_losses(detector, losses)
    values = step(detector, data)
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(values[name], value.detach())

    layer = detector.decoder.layers[1]
    module = next(m for m in layer.modules() if isinstance(m, nn.LayerNorm))
    (name,) = (n for n, m in detector.named_modules() if m is module)
    with broken_output(module), pytest.raises(UserError) as error:
        step(detector, data)
    assert 'loss_cls' in str(error.value)
    assert f'is that of {name} (LayerNorm)' in str(error.value)

    with (
        broken_value(module.weight, torch.nan),
        pytest.raises(
            UserError, match=f'the weights {name}.weight are not finite'
        ),
    ):
        step(detector, data)
    with (
        broken_value(data['inputs'][1], torch.inf),
        pytest.raises(
            UserError, match=r'the pixels of photos/1\.jpg are not finite'
        ),
    ):
        step(detector, data)
    boxes = data['data_samples'][0].gt_instances.bboxes
    with (
        broken_value(boxes, torch.nan),
        pytest.raises(
            UserError, match=r'the boxes of photos/0\.jpg are not finite'
        ),
    ):
        step(detector, data)
    step(detector, data)


def test_predictions(detector: nn.Module, data: dict) -> None:
    """No metric sees NaN."""
    packed = dict(
        inputs=[torch.zeros(3, 64, 64), torch.zeros(3, 64, 64)],
        data_samples=data['data_samples'],
    )
    for sample in data['data_samples']:
        sample.set_metainfo(
            dict(
                img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0)
            )
        )
    detector.eval()
    try:
        with torch.no_grad():
            assert len(detector.test_step(packed)) == 2
        weight = next(
            p
            for n, p in detector.named_parameters()
            if n.startswith('backbone') and p.dim() == 4
        )
        for run in (detector.test_step, detector.val_step):
            with (
                torch.no_grad(),
                broken_value(weight, torch.nan),
                pytest.raises(
                    UserError, match=r'photos/0\.jpg.* the weights backbone'
                ),
            ):
                run(packed)
    finally:
        detector.train()


def test_the_loss_of_another_process(
    monkeypatch: pytest.MonkeyPatch, data: dict
) -> None:
    """It stops this one as well, in the words of the other."""
    from project.models.detectors import finite_step

    detector = build_model(toy_config('h')).train()
    monkeypatch.setattr(
        finite_step, 'all_reduce', lambda flag, op: flag.fill_(1)
    )
    monkeypatch.setattr(
        finite_step, 'all_gather_object', lambda own: [own, 'Theirs.']
    )
    with pytest.raises(UserError, match=r'^Theirs\.$'):
        step(detector, data)


def test_one_broken_query_is_noticed(data: dict) -> None:
    """Though losses of boxes are those of matched queries alone."""
    detector = build_model(toy_config('h')).train()
    head = detector.bbox_head
    forward = head.forward

    def broken(*args: Any, **kwargs: Any) -> tuple:
        scores, boxes, *rest = forward(*args, **kwargs)
        boxes = boxes.clone()
        boxes[-1, 0, 5] = torch.nan
        return scores, boxes, *rest

    head.forward = broken
    with pytest.raises(
        UserError, match=r'2 of 15 losses \(loss_bbox, loss_iou\)'
    ):
        step(detector, data)


def test_nothing_is_trained_on_them(data: dict) -> None:
    detector = build_model(toy_config('deta')).train()
    steps = Steps(detector)
    packed = dict(
        inputs=[torch.zeros(3, 64, 64)], data_samples=data['data_samples'][1:]
    )
    detector.train_step(packed, steps)
    assert steps.num_steps == 1
    module = detector.encoder.layers[0].norms[0]
    with broken_output(module), pytest.raises(UserError, match='LayerNorm'):
        detector.train_step(packed, steps)
    assert steps.num_steps == 1
