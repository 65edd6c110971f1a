# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmdet.registry import TRANSFORMS

from project.datasets.transforms.any_depth_resize import AnyDepthResize


def size_within(
    size: tuple[int, int], scale: tuple[int, int]
) -> tuple[int, int]:
    """Output size of an image in DETR's code.

    The short side gets the smaller number of the scale, and the long side is
    rounded down. If the long side would exceed the larger number, the short
    side is scaled down and rounded (half to even), and the long side follows
    from it, so that it may miss or exceed the limit.

    Args:
        size (tuple[int, int]): Width and height in pixels, both at least 1.
        scale (tuple[int, int]): Size of the short side and limit of the long
            side in pixels, in any order.

    Returns:
        tuple[int, int]: Width and height in pixels, both at least 1.
    """
    short, long = sorted(size)
    side, limit = sorted(scale)
    if long * side > limit * short:
        side = round(limit * short / long)
    # For very thin images, DETR's code would give a side of 0.
    sides = (side, side * long // short) if side else (1, limit)
    return sides if size[0] <= size[1] else sides[::-1]


@TRANSFORMS.register_module()
class DETRResize(AnyDepthResize):
    """Resizes an image and its annotations to the output size of DETR's code.

    ``Resize`` rounds both sides half up, as detectron2: 640 x 480 at
    (1333, 800) becomes 1067 x 800 there and 1066 x 800 here. The weights of
    H-DETR, DETA, DN-DETR and Anchor DETR were published with the sizes here.
    ``scale_factor`` is the exact ratio of the sizes along x and y. Can be the
    ``resize_type`` of ``RandomChoiceResize``.

    Args:
        scale (tuple[int, int] | int): Size of the short side and limit of the
            long side in pixels, in any order; one number is both.
        keep_ratio (bool): False uses ``scale`` as width and height. Defaults
            to True.
        **kwargs (Any): As in ``Resize``: ``backend``, ``interpolation``,
            ``clip_object_border``.
    """

    def __init__(
        self,
        scale: tuple[int, int] | int,
        keep_ratio: bool = True,
        **kwargs: Any,
    ) -> None:
        # The parent gets the exact size, since it rounds differently.
        super().__init__(scale=scale, keep_ratio=False, **kwargs)
        self._keeps_ratio = keep_ratio

    def _resize_img(self, results: dict) -> None:
        """Resize the image; the annotations follow its size."""
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
