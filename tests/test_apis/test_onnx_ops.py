"""Our custom ops as ONNX nodes, for any number of images and boxes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from project.models.layers.roi_features import MemoryRoIAlign
from project.models.utils.distinct_boxes import (
    best_distinct_boxes,
    distinct_boxes,
)
from project.models.utils.gather import true_first
from project.models.utils.nms import nms_in_groups
from project.ops import multi_scale_deformable_attention
from project.ops.onnx_mode import onnx_mode

pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

SHAPES = [(4, 6), (2, 3)]


class Operators(nn.Module):
    """Calls them as the detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = MemoryRoIAlign(
            dict(
                type='SingleRoIExtractor',
                roi_layer=dict(
                    type='RoIAlign', output_size=2, sampling_ratio=2
                ),
                out_channels=8,
                featmap_strides=[8, 16],
            )
        )

    def forward(self, value: Tensor, boxes: Tensor) -> tuple[Tensor, ...]:
        number, count = boxes.shape[:2]
        points = boxes[:, :, None, None, None, :2].expand(-1, -1, 2, 2, 3, 2)
        points = points + 0.1 * torch.arange(3)[:, None]
        weights = points[..., 0].flatten(3).softmax(-1).view(points.shape[:-1])
        shapes = torch.tensor(SHAPES)
        starts = torch.tensor([0, 24])
        attended = [
            multi_scale_deformable_attention(
                v, shapes, starts, points, weights, level_shapes=SHAPES
            )
            for v in (value, value.half())
        ]
        groups = torch.arange(count).expand(number, -1) % 3
        scores = boxes.sum(-1).sin()
        stays = nms_in_groups(boxes, groups, 3, 0.3)
        memory = value.flatten(2)
        return (
            attended[0],
            attended[1].float(),
            true_first(stays, 5),
            distinct_boxes(boxes, scores, 0.3, scores > 0),
            *best_distinct_boxes(boxes, scores, 5, 0.3),
            self.pool(memory, boxes * 48, SHAPES),
            self.pool(memory.half(), boxes * 48, SHAPES).float(),
        )


def inputs(number: int, count: int) -> tuple[Tensor, Tensor]:
    corners = torch.rand(number, count, 2) * 0.6
    boxes = torch.cat([corners, corners + 0.1 + torch.rand_like(corners)], 2)
    return torch.rand(number, 30, 2, 4), boxes.clamp(max=1)


@torch.no_grad()
def test_nodes_compute_what_the_ops_do(tmp_path: Path) -> None:
    from project.apis.export.onnx_ops import translations

    torch.manual_seed(0)
    module = Operators()
    some = {0: Dim.DYNAMIC}
    with onnx_mode():
        program = torch.export.export(
            module,
            inputs(2, 9),
            dynamic_shapes=(some, {**some, 1: Dim.DYNAMIC}),
        )
    path = tmp_path / 'ops.onnx'
    torch.onnx.export(
        program,
        (),
        input_names=['value', 'boxes'],
        opset_version=18,
        custom_translation_table=translations(),
        verbose=False,
    ).save(path)
    session = onnxruntime.InferenceSession(str(path))
    for number, count in ((2, 9), (1, 30), (3, 17)):
        value, boxes = inputs(number, count)
        found = session.run(
            None, {'value': value.numpy(), 'boxes': boxes.numpy()}
        )
        expected = module(value, boxes)
        assert 0 < expected[3].sum() < expected[3].numel()
        for tensor, array in zip(expected, found, strict=True):
            is_half = tensor is expected[1] or tensor is expected[-1]
            tolerance = 1e-3 if is_half else 1e-5
            np.testing.assert_allclose(array, tensor.numpy(), atol=tolerance)
