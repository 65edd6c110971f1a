# Copyright (c) mmdetr authors. All rights reserved.
"""A detector from pixels to boxes as one module, and its graph."""

import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from project.models.dense_heads.detecting import DetectingMixin
from project.models.detectors.tensor_mode import TensorModeMixin
from project.ops import attention_backend
from project.ops.onnx_mode import onnx_mode
from project.utils.errors import UserError

INPUT = 'images'
OUTPUTS = ('boxes', 'scores', 'labels')


class ExportedNetwork(nn.Module):
    """Detects in images of one size, which fill their batch.

    Args:
        model (TensorModeMixin): A detector of this package.

    Raises:
        UserError: If it is another detector.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        head = getattr(model, 'bbox_head', None)
        if not (
            isinstance(model, TensorModeMixin)
            and isinstance(head, DetectingMixin)
        ):
            raise UserError(
                f'{type(model).__name__} with {type(head).__name__} cannot be '
                'exported: only the detectors and heads of this package can.'
            )
        preprocessor = model.data_preprocessor
        # That of each branch, where training images have two.
        preprocessor = getattr(preprocessor, 'data_preprocessor', preprocessor)
        self.model = model.eval()
        self.is_bgr = not getattr(preprocessor, '_channel_conversion', False)
        for name, default in (('mean', 0.0), ('std', 1.0)):
            value = getattr(preprocessor, name, torch.full((3, 1, 1), default))
            if value.numel() != 3:
                raise UserError(
                    f'model.data_preprocessor.{name} has {value.numel()} '
                    'numbers; only detectors of colour images can be exported'
                )
            self.register_buffer(name, value.detach().float().view(3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detect objects.

        Args:
            images (Tensor): RGB from 0 to 255 in float32, has shape
                (bs, 3, h, w).

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes (x1, y1, x2, y2) in pixels,
            has shape (bs, n, 4), scores and labels, best first, each has
            shape (bs, n); see ``TensorModeMixin.detect``.
        """
        if self.is_bgr:
            images = images.flip(1)
        images = (images - self.mean) / self.std
        dtype = next(self.model.parameters()).dtype
        boxes, scores, labels = self.model.detect(images.to(dtype))
        return boxes.float(), scores.float(), labels


@torch.no_grad()
def capture(
    network: nn.Module,
    shape: tuple[int, int],
    dynamic: bool,
    for_onnx: bool = True,
) -> ExportedProgram:
    """Trace a network.

    Args:
        network (nn.Module): Takes images.
        shape (tuple[int, int]): (h, w) of the images; with ``dynamic`` those
            of an example.
        dynamic (bool): Whether it is to take any number of images of any
            size.
        for_onnx (bool): Whether it becomes ONNX, which has nodes in place
            of our custom ops. Defaults to True.

    Returns:
        ExportedProgram: Its graph and weights.
    """
    number = 2 if dynamic else 1
    images = torch.rand(number, 3, *shape) * 255
    sizes = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    mode = onnx_mode() if for_onnx else attention_backend('pytorch')
    with mode, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return torch.export.export(
            network,
            (images,),
            dynamic_shapes=({**sizes},) if dynamic else None,
        )
