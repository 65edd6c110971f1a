import math

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

import project  # noqa: F401
from project.utils.errors import UserError
from tests.helpers.toy import (
    build_model,
    check_detections,
    tiny_model_config,
    toy_batch,
)

R50 = 'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py'


def toy_config(**changes) -> ConfigDict:
    return tiny_model_config(R50, **changes)


@pytest.fixture(scope='module')
def detector() -> nn.Module:
    return build_model(toy_config())


def test_queries_are_patterns_at_points(detector: nn.Module) -> None:
    """Query pattern * num_points + point."""
    inputs, head_inputs = detector.pre_decoder(torch.zeros(2, 3, 5, 256))
    assert not head_inputs
    assert inputs['query'].shape == (2, 12, 256)
    for image in range(2):
        for query in range(12):
            pattern, point = divmod(query, 4)
            assert torch.equal(
                inputs['query'][image, query],
                detector.patterns.weight[pattern],
            )
            assert torch.equal(
                inputs['reference_points'][image, query],
                detector.anchor_points.weight[point],
            )
            for pos in (inputs['query_pos'], *inputs['query_axis_pos']):
                assert torch.equal(pos[image, query], pos[0, point])


def positions_of(detector: nn.Module, *sizes: tuple[int, int]) -> tuple:
    """Padding and coordinates on x and y that the encoder works with."""
    batch, samples = toy_batch(sizes, (1,) * len(sizes))
    coordinates = []
    hook = detector.axis_pos_mlp.register_forward_pre_hook(
        lambda _, args: coordinates.append(args[0])
    )
    with torch.no_grad():
        inputs, _ = detector.pre_transformer(
            detector.extract_feat(batch), samples
        )
    hook.remove()
    # The longest wave's sine, which grows with the coordinate.
    longest = 2 * math.pi / 10000 ** (254 / 256)
    return inputs['padding'], [
        x[..., -2].asin() / longest for x in coordinates
    ]


def test_positions_within_padded_images(detector: nn.Module) -> None:
    """Shares of the unpadded map; padding lies where its last pixel does."""
    padding, (x, y) = positions_of(detector, (64, 160), (96, 96))
    assert padding[0].tolist() == [[False] * 5, [False] * 3 + [True] * 2]
    assert padding[1].tolist() == [[False, False, True], [False] * 3]
    expected_x = [[0.1, 0.3, 0.5, 0.7, 0.9], [1 / 6, 0.5] + [5 / 6] * 3]
    expected_y = [[0.25, 0.75, 0.75], [1 / 6, 0.5, 5 / 6]]
    torch.testing.assert_close(x, torch.tensor(expected_x), rtol=0, atol=2e-4)
    torch.testing.assert_close(y, torch.tensor(expected_y), rtol=0, atol=2e-4)


def test_padding_is_found_as_nearest_interpolation_does(
    detector: nn.Module,
) -> None:
    padding, _ = positions_of(detector, (70, 161), (97, 90))
    shape = padding[1].shape[1], padding[0].shape[1]
    full = torch.ones(2, 97, 161)
    for mask, (height, width) in zip(full, ((70, 161), (97, 90)), strict=True):
        mask[:height, :width] = 0
    expected = nn.functional.interpolate(full[None], shape)[0].bool()
    found = padding[0][:, None] | padding[1][..., None]
    assert torch.equal(found, expected)


def test_images_of_one_size_are_not_padded(detector: nn.Module) -> None:
    padding, (x, _) = positions_of(detector, (64, 96), (64, 96))
    assert padding == (None, None)
    assert x.shape == (1, 3)


def test_evaluation_of_two_padded_images(detector: nn.Module) -> None:
    batch, samples = toy_batch(((64, 160), (96, 96)), (3, 2))
    for found in check_detections(detector, batch, samples):
        assert len(found) == 100
    # Anchor points are of the image, not of the padded batch.
    with torch.no_grad():
        _, boxes = detector(batch, samples, mode='tensor')
    points = detector.anchor_points.weight.repeat(3, 1)
    torch.testing.assert_close(
        boxes[-1, 1, :, :2], points.clamp(1e-3, 1 - 1e-3), rtol=0, atol=1e-5
    )


def test_initial_weights() -> None:
    """Focal prior, small boxes, uniform points, else what PyTorch draws."""
    model = build_model(toy_config(num_queries=900), seed=1)
    (bias,) = {branch.bias for branch in model.bbox_head.cls_branches}
    torch.testing.assert_close(bias, torch.full((80,), -math.log(99)))
    (last,) = {branch[-1] for branch in model.bbox_head.reg_branches}
    assert not last.weight.any()
    assert last.bias.tolist() == [0, 0, -2, -2]
    points = model.anchor_points.weight
    assert points.shape == (300, 2)
    assert 0 <= points.min() < 0.02
    assert 0.98 < points.max() <= 1
    assert points.mean().item() == pytest.approx(0.5, abs=0.05)
    assert model.patterns.weight.std().item() == pytest.approx(1, rel=0.1)
    layer = model.decoder.layers[0]
    conv = model.neck.convs[0].conv
    defaults = (
        (conv.weight, 128),
        (conv.bias, 128),
        (model.axis_pos_mlp[0].weight, 256),
        (model.point_pos_mlp[2].weight, 256),
        (layer.ffn.layers[0][0].weight, 256),
        (layer.ffn.layers[1].weight, 32),
        (layer.cross_attn.out_proj.weight, 256),
        (model.bbox_head.cls_branches[0].weight, 256),
    )
    for tensor, fan_in in defaults:
        bound = fan_in**-0.5
        assert 0.95 * bound < tensor.abs().max() <= bound
        assert tensor.std().item() == pytest.approx(
            bound / math.sqrt(3), rel=0.1
        )
    for attention in (layer.cross_attn, layer.self_attn.attn):
        fused = attention.in_proj_weight
        bound = (6 / sum(fused.shape)) ** 0.5
        assert 0.99 * bound < fused.abs().max() <= bound
        assert not attention.in_proj_bias.any()
        assert not attention.out_proj.bias.any()


@pytest.mark.parametrize(
    ('num_patterns', 'message'),
    [
        (5, 'num_queries=12 should be a multiple of num_patterns=5'),
        (0, 'num_patterns=0 should be a whole number, 1 or more'),
    ],
)
def test_patterns_divide_the_queries(num_patterns: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(toy_config(num_patterns=num_patterns))


def test_one_feature_map(detector: nn.Module) -> None:
    maps = [torch.zeros(1, 256, 4, 4), torch.zeros(1, 256, 2, 2)]
    with pytest.raises(UserError, match='neck gives 2 feature maps'):
        detector.pre_transformer(maps)
