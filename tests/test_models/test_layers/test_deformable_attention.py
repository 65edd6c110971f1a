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


def test_half_precision_value() -> None:
    """Under autocast on a CPU the value is bfloat16, the points are not."""
    attention = DeformableAttention(
        embed_dims=DIMS, num_heads=4, num_levels=2, batch_first=True
    )
    data = {
        name: value.float() if value.is_floating_point() else value
        for name, value in inputs(4).items()
    }
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = attention(**data, level_shapes=LEVELS)
    assert result.isfinite().all()
