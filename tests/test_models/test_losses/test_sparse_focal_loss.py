import pytest
import torch
from mmdet.models.losses import FocalLoss

from project.models.losses import SparseFocalLoss


@pytest.mark.parametrize('gamma', [2.0, 1.5])
def test_equals_mmdet(gamma: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 1, 9, 5, generator=generator).double() * 3
    scores.requires_grad_()
    labels = torch.full((2, 9), 5)
    labels[0, 3], labels[0, 7], labels[1, 0] = 2, 4, 0
    theirs = FocalLoss(
        use_sigmoid=True, gamma=gamma, alpha=0.3, loss_weight=1.7
    )
    expected = torch.stack(
        [
            theirs(scores[layer, 0], labels[layer], reduction_override='sum')
            for layer in range(2)
        ]
    )
    ours = SparseFocalLoss(theirs)
    result = ours.negative(scores)
    correction, _ = ours.pair_terms(
        torch.stack(
            [scores[0, 0, 3, 2], scores[0, 0, 7, 4], scores[1, 0, 0, 0]]
        ),
        context=None,
    )
    result = result.index_add(0, torch.tensor([0, 0, 1]), correction)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=0)
    probe = torch.tensor([1.0, -0.5], dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad((result * probe).sum(), scores),
        torch.autograd.grad((expected * probe).sum(), scores),
        rtol=1e-11,
        atol=1e-13,
    )


def test_extreme_logits_stay_finite() -> None:
    scores = torch.tensor([[[[-1e4, 1e4, 0.0]]]], requires_grad=True)
    loss = SparseFocalLoss(FocalLoss()).negative(scores)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    """Of a first stage's logits, whose sum float16 cannot hold."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(1, 1, 20000, 91, generator=generator).to(dtype)
    results = []
    for is_on in (False, True):
        given = scores.detach().clone().requires_grad_()
        with torch.autocast('cpu', dtype=dtype, enabled=is_on):
            focal = SparseFocalLoss(FocalLoss())
            terms = focal.pair_terms(given.flatten()[:7], context=None)
            loss = focal.negative(given) + terms.correction.sum()
        assert loss.dtype == torch.float32
        assert loss > 65504
        results.append((loss, *torch.autograd.grad(loss.sum(), given)))
    assert all(map(torch.equal, *results))
