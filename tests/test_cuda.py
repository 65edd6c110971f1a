"""What only a GPU can show; skipped without one."""

import copy

import pytest
import torch
from torch import nn

import project  # noqa: F401
from project.utils.errors import UserError
from tests.helpers.numerics import check_half_precision
from tests.helpers.toy import build_model, toy_batch, toy_model_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason='needs a CUDA device'
    ),
]


@pytest.fixture(
    scope='module',
    params=[
        'h_detr/h-detr_r50_8xb2-12e_coco.py',
        'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
    ],
)
def detector(request: pytest.FixtureRequest) -> nn.Module:
    return build_model(toy_model_config(request.param)).cuda().train()


def cuda_batch() -> tuple:
    batch, samples = toy_batch(((256, 320), (224, 256)), (5, 0))
    return batch.cuda(), [sample.cuda() for sample in samples]


def test_a_training_step_waits_for_the_matching_only(
    detector: nn.Module,
) -> None:
    """No hidden synchronisation from the backbone to the gradients.

    The one wait is that of ``HostCopy`` for its event, which this mode does
    not count.
    """
    batch, samples = cuda_batch()
    sum(detector.loss(batch, samples).values()).backward()  # fills the caches
    torch.cuda.set_sync_debug_mode('error')
    try:
        features = detector.extract_feat(batch)
        inputs = detector.forward_transformer(features, samples)
        losses = detector.bbox_head.loss(**inputs, batch_data_samples=samples)
        sum(losses.values()).backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('label', [80, -1])
def test_a_label_that_is_no_class(detector: nn.Module, label: int) -> None:
    """Told where the host waits for the matching, and nothing else broke."""
    batch, samples = cuda_batch()
    samples[0].gt_instances.labels[1] = label
    with pytest.raises(UserError, match=f'label {label}, .* 0 to 79'):
        detector.loss(batch, samples)
    torch.cuda.synchronize()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(detector: nn.Module, dtype: torch.dtype) -> None:
    check_half_precision(copy.deepcopy(detector), dtype, 'cuda')


def test_losses_equal_those_of_the_cpu(detector: nn.Module) -> None:
    check_losses(detector)


def test_losses_of_deta_equal_those_of_the_cpu() -> None:
    """Suppression and assignment by IoU included."""
    config = toy_model_config('deta/deta_r50_5scale_8xb2-12e_coco.py')
    check_losses(build_model(config).cuda().train())


def check_losses(detector: nn.Module) -> None:
    batch, samples = cuda_batch()
    detector.double()
    losses = detector.loss(batch.double(), samples)
    detector.cpu()
    expected = detector.loss(
        batch.cpu().double(), [sample.cpu() for sample in samples]
    )
    detector.cuda().float()
    for name, value in losses.items():
        torch.testing.assert_close(
            value.cpu(), expected[name], rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast(detector: nn.Module, dtype: torch.dtype) -> None:
    batch, samples = cuda_batch()
    full = detector.loss(batch, samples)
    with torch.autocast('cuda', dtype=dtype):
        losses = detector.loss(batch, samples)
    sum(losses.values()).backward()
    total, expected = (sum(d.values()).item() for d in (losses, full))
    assert total == pytest.approx(expected, rel=0.05)
