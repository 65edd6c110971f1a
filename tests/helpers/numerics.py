"""What every detector does in any precision, on any device."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest import mock

import pytest
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn
from torch.testing import assert_close

from project.models.detectors import hpr_ddq_detr
from project.models.layers.transformer import ddq_decoder
from project.utils.errors import UserError

from .toy import toy_batch
from .waiting_ops import WaitingOps, on_device

HALF = [
    torch.bfloat16,
    pytest.param(torch.float16, marks=pytest.mark.slow),
]
"""float16 is slow on a CPU."""
TOLERANCES = {torch.bfloat16: 3e-2, torch.float16: 4e-3}
"""Of values that are computed with eight and eleven significant bits."""


def flat(losses: dict) -> dict[str, Tensor]:
    """One tensor for each loss; some are lists of one for each image."""
    return {
        name: sum(value) if isinstance(value, list) else value
        for name, value in losses.items()
    }


def head_losses(
    model: nn.Module, inputs: dict, samples: list[DetDataSample]
) -> tuple[dict[str, Tensor], Tensor]:
    """Losses of the head, and their gradient at the hidden states."""
    output = inputs['decoder_output']
    hidden_states = output.hidden_states.detach().requires_grad_()
    # Without box deltas the head applies its box heads itself.
    output = replace(output, hidden_states=hidden_states, box_deltas=())
    inputs = {**inputs, 'decoder_output': output}
    losses = flat(model.bbox_head.loss(**inputs, batch_data_samples=samples))
    (gradient,) = torch.autograd.grad(sum(losses.values()), hidden_states)
    return losses, gradient


def check_losses_under_autocast(model: nn.Module, dtype: torch.dtype) -> None:
    """All that follows the decoder is as in float32, but for a box head."""
    batch, samples = toy_batch()
    torch.manual_seed(0)  # of the noise, where there is one
    with torch.no_grad():
        feats = model.train().extract_feat(batch)
        inputs = model.forward_transformer(feats, samples)
    expected, gradient = head_losses(model, inputs, samples)
    with torch.autocast('cpu', dtype=dtype):
        losses, half_gradient = head_losses(model, inputs, samples)
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(
            value, expected[name], rtol=TOLERANCES[dtype], atol=1e-4, msg=name
        )
    gap = (half_gradient - gradient).norm() / gradient.norm()
    assert gap < 5 * TOLERANCES[dtype]


@torch.no_grad()
def check_half_precision(
    model: nn.Module, dtype: torch.dtype, device: str = 'cpu'
) -> None:
    """A model in half precision finds boxes where one in float32 does.

    Where proposals are chosen it is given the same ones: those of random
    weights differ in nothing that half precision tells.
    """
    batch, samples = toy_batch()
    batch, samples = batch.to(device), [s.to(device) for s in samples]
    half = copy.deepcopy(model.eval()).to(dtype)
    with _choices_noted(model) as chosen:
        expected = model._forward(batch, samples)[1]
    with _choices_given(half, chosen):
        boxes = half._forward(batch.to(dtype), samples)[1]
    assert boxes.dtype == torch.float32
    # By the nearest, for a layer may sort them: queries that tie.
    gaps = torch.cdist(boxes, expected, p=float('inf')).amin(-1)
    assert gaps.max() < 1e-2
    for sample in half.predict(batch.to(dtype), samples):
        assert sample.pred_instances.scores.dtype == torch.float32
        assert sample.pred_instances.bboxes.isfinite().all()


@contextmanager
def _choices_noted(model: nn.Module) -> Iterator[dict[str, list]]:
    """Keep what is chosen in a model, by the names of functions."""
    chosen = {}
    with ExitStack() as stack:
        for owner, name in _choices(model):
            spy = _Spy(getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, spy))
            chosen[name] = spy.results
        yield chosen


@contextmanager
def _choices_given(
    model: nn.Module, chosen: dict[str, list]
) -> Iterator[None]:
    """Have the same chosen in another model."""
    with ExitStack() as stack:
        for owner, name in _choices(model):
            same = mock.Mock(side_effect=chosen[name])
            stack.enter_context(mock.patch.object(owner, name, same))
        yield


def _choices(model: nn.Module) -> list[tuple[object, str]]:
    """What chooses queries in a model: owners, and names of functions."""
    choices = [
        (model, 'choose_proposals'),
        (hpr_ddq_detr, 'best_distinct_boxes'),
        (ddq_decoder, 'distinct_boxes'),
    ]
    return [choice for choice in choices if hasattr(*choice)]


class _Spy:
    """A function whose results are kept."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.results = []

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.results.append(self.function(*args, **kwargs))
        return self.results[-1]


def waits_in_training(model: nn.Module) -> Counter:
    """For what the host waits in a training step, losses and gradients."""
    batch, samples = on_device(toy_batch())
    with WaitingOps() as ops:
        losses = flat(model.train().loss(batch, samples))
        sum(losses.values()).backward()
    model.zero_grad()
    return Counter(ops.found)


@torch.no_grad()
def waits_in_detection(model: nn.Module) -> Counter:
    """For what the host waits when two images are detected in."""
    batch, samples = on_device(toy_batch())
    with WaitingOps() as ops:
        model.eval().predict(batch, samples)
    return Counter(ops.found)


def count_loss_by_feat(model: nn.Module) -> dict[str, Tensor]:
    """Losses of a model whose head has a subclass's ``loss_by_feat``."""
    head_class = type(model.bbox_head)

    class UsersHead(head_class):
        def loss_by_feat(self, *args, **kwargs):
            losses = super().loss_by_feat(*args, **kwargs)
            losses['loss_of_user'] = args[0].sum() * 0 + 7
            return losses

    model.bbox_head.__class__ = UsersHead
    try:
        return flat(model.train().loss(*toy_batch()))
    finally:
        model.bbox_head.__class__ = head_class


def check_training_in_bf16(model: nn.Module) -> None:
    """A step under autocast goes as in float32, but for rounding.

    Where proposals are chosen it is given the same ones, as in
    :func:`check_half_precision`.
    """
    plain, mixed = (copy.deepcopy(model).train() for _ in range(2))
    with _choices_noted(plain) as chosen:
        expected = _totals(plain, False)
    with _choices_given(mixed, chosen):
        found = _totals(mixed, True)
    assert found == pytest.approx(expected, rel=1e-2)
    assert found != expected


def _totals(model: nn.Module, is_mixed: bool) -> list[float]:
    """Losses on one batch before and after a step."""
    batch, samples = toy_batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    totals = []
    while True:
        torch.manual_seed(len(totals))  # of the noise, where there is one
        with torch.autocast('cpu', torch.bfloat16, enabled=is_mixed):
            losses = flat(model.loss(batch, samples))
        total = sum(losses.values())
        totals.append(total.item())
        if len(totals) == 2:
            return totals
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def check_earlier_layers(model: nn.Module) -> None:
    """``num_decoder_layers`` detects as a decoder that ends there does."""
    model = copy.deepcopy(model).eval()
    batch, samples = toy_batch()
    model.bbox_head.test_cfg = dict(model.bbox_head.test_cfg)
    settings = model.bbox_head.test_cfg

    def detect() -> dict[str, Tensor]:
        with torch.no_grad():
            found = model.predict(batch, copy.deepcopy(samples))
        return found[0].pred_instances.to_dict()

    by_default = detect()
    settings['num_decoder_layers'] = 2
    assert_close(detect(), by_default, rtol=0, atol=0)
    settings['num_decoder_layers'] = 1
    after_one = detect()
    assert not torch.equal(after_one['scores'], by_default['scores'])
    settings['num_decoder_layers'] = 3
    with pytest.raises(UserError, match='=3, but the decoder has 2 layers'):
        detect()
    del settings['num_decoder_layers']
    model.decoder.layers = model.decoder.layers[:1]
    assert_close(after_one, detect())
