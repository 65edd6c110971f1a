import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention

import project  # noqa: F401
from project.models.layers.transformer.deformable_attention import (
    DeformableAttention,
)

LEVELS = ((6, 8), (3, 4))
DIMS = 16


def inputs(reference_dims: int) -> dict:
    generator = torch.Generator().manual_seed(0)
    num_points = sum(h * w for h, w in LEVELS)
    mask = torch.zeros(2, num_points, dtype=torch.bool)
    mask[1, ::5] = True
    return dict(
        query=torch.randn(2, 7, DIMS, generator=generator).double(),
        value=torch.randn(2, num_points, DIMS, generator=generator).double(),
        query_pos=torch.randn(2, 7, DIMS, generator=generator).double(),
        key_padding_mask=mask,
        reference_points=torch.rand(
            2, 7, len(LEVELS), reference_dims, generator=generator
        ).double(),
        spatial_shapes=torch.tensor(LEVELS),
        level_start_index=torch.tensor([0, 48]),
    )


@pytest.mark.parametrize('reference_dims', [2, 4])
def test_equals_mmcv(reference_dims: int) -> None:
    settings = dict(embed_dims=DIMS, num_heads=4, num_levels=2, dropout=0.0)
    settings['batch_first'] = True
    torch.manual_seed(1)
    theirs = MultiScaleDeformableAttention(**settings).double()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = DeformableAttention(**settings).double()
    ours.load_state_dict(theirs.state_dict())
    expected = theirs(**inputs(reference_dims))
    result = ours(**inputs(reference_dims), level_shapes=LEVELS)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def test_half_precision_keeps_the_pixel() -> None:
    """Under autocast the value is bfloat16, the points are not.

    In bfloat16 a point at 0.6 of 2000 pixels would move by up to 4.
    """
    attention = DeformableAttention(
        embed_dims=DIMS, num_heads=4, num_levels=1, dropout=0, batch_first=True
    )
    generator = torch.Generator().manual_seed(0)
    query = torch.zeros(1, 50, DIMS)
    points = torch.rand(1, 50, 1, 2, generator=generator)
    data = dict(
        query=query,
        value=torch.randn(1, 2000, DIMS, generator=generator),
        reference_points=points,
        spatial_shapes=torch.tensor([[1, 2000]]),
        level_start_index=torch.tensor([0]),
        level_shapes=((1, 2000),),
    )
    expected = attention(**data)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = attention(**data)
    error = (result - expected).norm() / expected.norm()
    assert error < 0.03
