import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.layers.transformer import (
    DeformableDetrTransformerEncoderLayer,
)

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


@pytest.mark.parametrize('batch_first', [True, False])
def test_takes_the_place_of_mmcvs(batch_first: bool) -> None:
    """With mmcv's arguments alone, and in either order of the axes."""
    torch.manual_seed(1)
    settings = dict(embed_dims=DIMS, num_heads=4, num_levels=2, dropout=0.0)
    theirs, ours = (
        kind(**settings, batch_first=batch_first).double()
        for kind in (MultiScaleDeformableAttention, DeformableAttention)
    )
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours.load_state_dict(theirs.state_dict())
    given = inputs(2)
    if not batch_first:
        for name in ('query', 'value', 'query_pos'):
            given[name] = given[name].transpose(0, 1)
    torch.testing.assert_close(
        ours(**given), theirs(**given), rtol=1e-12, atol=1e-12
    )


def test_inside_mmdets_encoder_layer() -> None:
    torch.manual_seed(1)
    layer = DeformableDetrTransformerEncoderLayer(
        self_attn_cfg=dict(
            embed_dims=DIMS, num_heads=4, num_levels=2, dropout=0.0
        ),
        ffn_cfg=dict(embed_dims=DIMS, feedforward_channels=32, ffn_drop=0.0),
    ).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    given = inputs(2)
    given['query'] = given.pop('value')
    given['query_pos'] = torch.randn_like(given['query'])
    points = given['reference_points'][:, :1]
    given['reference_points'] = points.repeat(1, len(given['query'][0]), 1, 1)
    expected = layer(**given)
    ours = DeformableAttention(**layer.self_attn_cfg).double()
    ours.load_state_dict(layer.self_attn.state_dict())
    layer.self_attn = ours
    torch.testing.assert_close(
        layer(**given), expected, rtol=1e-12, atol=1e-12
    )


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
