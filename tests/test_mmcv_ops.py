"""The compiled ops of mmcv that mmdet uses, against PyTorch and by hand.

`make setup` compiles them from joined files, which mmcv itself does not.
"""

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import (
    DeformConv2dPack,
    ModulatedDeformConv2d,
    RoIAlign,
    RoIAlignRotated,
    batched_nms,
    box_iou_quadri,
    box_iou_rotated,
    deform_conv2d,
    nms,
    nms_match,
    nms_rotated,
    soft_nms,
)
from mmcv.ops.multi_scale_deform_attn import (
    multi_scale_deformable_attn_pytorch,
)
from torch import Tensor

# Overlaps of the first: 1, 8/12, 0.
BOXES = torch.tensor(
    [[0.0, 0, 10, 10], [0, 2, 10, 12], [50, 50, 60, 60]],
)
SCORES = torch.tensor([0.9, 0.8, 0.7])
OVERLAP = 80 / 120


@pytest.fixture
def values() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 4, 9, 11, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ('threshold', 'kept'), [(0.6, [0, 2]), (0.7, [0, 1, 2])]
)
def test_nms(threshold, kept):
    dets, indices = nms(BOXES, SCORES, threshold)
    assert indices.tolist() == kept
    torch.testing.assert_close(
        dets, torch.cat([BOXES, SCORES[:, None]], 1)[kept]
    )


def test_batched_nms_keeps_classes_apart():
    for classes, kept in (([0, 0, 0], [0, 2]), ([0, 1, 0], [0, 1, 2])):
        _, indices = batched_nms(
            BOXES, SCORES, torch.tensor(classes), dict(iou_threshold=0.6)
        )
        assert indices.tolist() == kept


@pytest.mark.parametrize(
    ('method', 'score'),
    [
        ('linear', 0.8 * (1 - OVERLAP)),
        ('gaussian', 0.8 * torch.tensor(-(OVERLAP**2) / 0.5).exp().item()),
        ('naive', None),
    ],
)
def test_soft_nms(method, score):
    dets, indices = soft_nms(BOXES, SCORES, 0.3, 0.5, 1e-3, method)
    expected = {0: 0.9, 2: 0.7} | ({} if score is None else {1: score})
    found = dict(zip(indices.tolist(), dets[:, 4].tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-6)


def test_nms_match_groups_what_overlaps():
    groups = nms_match(torch.cat([BOXES, SCORES[:, None]], 1), 0.6)
    assert [group.tolist() for group in groups] == [[0, 1], [2]]


def test_overlaps_of_unrotated_boxes():
    rotated = torch.tensor([[5.0, 5, 10, 10, 0], [5, 7, 10, 10, 0]])
    overlaps = box_iou_rotated(rotated, rotated)
    expected = torch.tensor([[1, OVERLAP], [OVERLAP, 1]])
    torch.testing.assert_close(overlaps, expected)
    low, high = torch.tensor([0, 1]), torch.tensor([2, 3])
    corners = [low, torch.tensor([2, 1]), high, torch.tensor([0, 3])]
    quads = torch.cat([BOXES[:2, corner] for corner in corners], 1)
    torch.testing.assert_close(box_iou_quadri(quads, quads), expected)


def test_nms_of_rotated_boxes():
    # A quarter turn of a long box leaves a tenth of it in common.
    boxes = torch.tensor(
        [[5.0, 5, 10, 1, 0], [5, 5, 1, 10, torch.pi / 2], [5, 5, 1, 10, 0]]
    )
    _, indices = nms_rotated(boxes, SCORES, 0.5)
    assert indices.tolist() == [0, 2]


def test_roi_align_averages_bilinear_samples(values):
    """One sample in the middle of each bin, as grid_sample takes it."""
    roi = torch.tensor([[1.0, 1.5, 2.0, 7.5, 6.0]], dtype=torch.float64)
    pooled = RoIAlign((2, 3), 1.0, 1, aligned=True)(values, roi)
    x = 1.5 - 0.5 + (torch.arange(3.0).double() + 0.5) * 2
    y = 2.0 - 0.5 + (torch.arange(2.0).double() + 0.5) * 2
    grid = torch.stack(
        [
            ((2 * x + 1) / 11 - 1).expand(2, 3),
            ((2 * y + 1) / 9 - 1)[:, None].expand(2, 3),
        ],
        dim=-1,
    )
    expected = F.grid_sample(values[1:], grid[None], align_corners=False)
    torch.testing.assert_close(pooled, expected)


def test_roi_align_rotated_by_nothing(values):
    box = torch.tensor([[0.0, 2, 1, 8, 7]], dtype=torch.float64)
    rotated = torch.tensor([[0.0, 5, 4, 6, 6, 0]], dtype=torch.float64)
    torch.testing.assert_close(
        RoIAlignRotated((2, 2), 1.0, 2, aligned=True)(values, rotated),
        RoIAlign((2, 2), 1.0, 2, aligned=True)(values, box),
    )


def test_gradient_of_roi_align(values):
    pool = RoIAlign((2, 2), 0.5, 2, aligned=True)
    roi = torch.tensor([[0.0, 1, 2, 17, 15]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: pool(x, roi), values[:1].requires_grad_()
    )


def test_deformable_convolution_without_offsets(values):
    weight = values[:, :, :3, :3].contiguous()
    offset = values.new_zeros(2, 18, 7, 9)
    found = deform_conv2d(values, offset, weight, 1, 0, 1, 1, 1)
    torch.testing.assert_close(found, F.conv2d(values, weight))


def test_deformable_convolution_one_pixel_off(values):
    weight = values[:, :, :3, :3].contiguous()
    offset = values.new_zeros(2, 18, 7, 9)
    offset[:, 0::2] = 1  # y
    found = deform_conv2d(values, offset, weight, 1, 0, 1, 1, 1)
    expected = F.conv2d(values[:, :, 1:], weight)
    torch.testing.assert_close(found[:, :, :-1], expected)


def test_gradient_of_deformable_convolution(values):
    torch.manual_seed(0)
    conv = DeformConv2dPack(4, 2, 3, padding=1).double()
    torch.nn.init.normal_(conv.conv_offset.weight, std=0.02)
    torch.nn.init.constant_(conv.conv_offset.bias, 0.3)
    image = values[:1, :, :3, :3].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(conv, image)


def test_modulated_deformable_convolution(values):
    conv = ModulatedDeformConv2d(4, 2, 3, padding=1).double()
    offset = values.new_zeros(2, 18, 9, 11)
    mask = values.new_full((2, 9, 9, 11), 0.25)
    expected = F.conv2d(values, 0.25 * conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(values, offset, mask), expected)


def test_deformable_attention():
    """At centres of cells it is a weighted sum of their values."""
    sizes = torch.tensor([[2, 3], [1, 2]])
    value = torch.arange(8.0).view(1, 8, 1, 1).repeat(1, 1, 1, 4)
    locations = torch.tensor([[2.5 / 3, 0.75], [0.25, 0.5]])
    weights = torch.tensor([0.25, 0.75])
    found = multi_scale_deformable_attn_pytorch(
        value,
        sizes,
        locations.view(1, 1, 1, 2, 1, 2),
        weights.view(1, 1, 1, 2, 1),
    )
    torch.testing.assert_close(
        found, torch.full((1, 1, 4), 0.25 * 5 + 0.75 * 6)
    )
