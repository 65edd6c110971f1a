# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import TRANSFORMS

from project.datasets.transforms.any_depth_resize import AnyDepthResize


def size_within(
    size: tuple[int, int], scale: tuple[int, int]
) -> tuple[int, int]:
    """Find the size that DETR's code gives an image.

    The short side becomes the smaller number of the scale exactly, and the
    long one is rounded down. Where that would take the long side over the
    larger number, the short side is rounded (halves to even) so that it would
    just fit, and the long one follows from it: it may miss or exceed the
    limit.

    Args:
        size (tuple[int, int]): Width and height in pixels, both at least 1.
        scale (tuple[int, int]): Length of the short side and limit of the
            long one in pixels, in any order.

    Returns:
        tuple[int, int]: Width and height in pixels, both at least 1.
    """
    short, long = sorted(size)
    side, limit = sorted(scale)
    if long * side > limit * short:
        side = round(limit * short / long)
    # DETR's code leaves nothing of a line.
    sides = (side, side * long // short) if side else (1, limit)
    return sides if size[0] <= size[1] else sides[::-1]


@TRANSFORMS.register_module()
class DETRResize(AnyDepthResize):
    """Resizes an image and its annotations to the size that DETR's code gives.

    ``Resize`` rounds both sides half up, as detectron2 does: 640 x 480 at
    (1333, 800) becomes 1067 x 800 there and 1066 x 800 here. Weights of
    H-DETR, DETA, DN-DETR and Anchor DETR were published with the size here.
    ``scale_factor`` is the ratio of the sizes themselves, along x and y, so
    boxes go back exactly. Usable as ``resize_type`` of
    ``RandomChoiceResize``, too.

    Args:
        scale (tuple[int, int] | int): Length of the short side and limit of
            the long one in pixels, in any order; one number is both.
        keep_ratio (bool): False takes ``scale`` as width and height, whatever
            the shape of the image. Defaults to True.
        **kwargs (Any): Of ``Resize``: ``backend``, ``interpolation``,
            ``clip_object_border``.
    """

    def __init__(
        self,
        scale: tuple[int, int] | int,
        keep_ratio: bool = True,
        **kwargs: Any,
    ) -> None:
        # The parent would round in its own way; it is given the exact size.
        super().__init__(scale=scale, keep_ratio=False, **kwargs)
        self._keeps_ratio = keep_ratio

    def _resize_img(self, results: dict) -> None:
        """Resize the image to the size that all annotations then follow."""
        if self._keeps_ratio:
            height, width = results['img'].shape[:2]
            results['scale'] = size_within((width, height), results['scale'])
        super()._resize_img(results)

    def __repr__(self) -> str:
        return (
            super()
            .__repr__()
            .replace('keep_ratio=False', f'keep_ratio={self._keeps_ratio}')
        )
