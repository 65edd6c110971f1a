# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from project.utils.errors import UserError

_SCALES = (4, 2, 1, 0.5)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Feature maps of several strides from the one map of a plain ViT.

    Source: `ViTDet <https://arxiv.org/abs/2203.16527>`_, section 3: the map
    is enlarged by deconvolutions or pooled, and projected by a 1x1 and a 3x3
    convolution with layer norms.

    Args:
        in_channels (int | Sequence[int]): Channels of the map.
        out_channels (int): Channels of all results. Defaults to 256.
        scales (Sequence[float]): Size of each result relative to the map, of
            4, 2, 1 and 0.5. Defaults to (2, 1, 0.5): strides of 8 to 32 from
            patches of 16 pixels.
        num_outs (int, optional): Number of results. Those beyond ``scales``
            halve the one before by a strided convolution. Defaults to the
            number of scales.
        init_cfg (dict, optional): As in mmengine.

    Raises:
        UserError: If there are several maps, or a scale is another number.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        scales: Sequence[float] = (2, 1, 0.5),
        num_outs: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not isinstance(in_channels, int):
            if len(in_channels) != 1:
                raise UserError(
                    f'model.neck.in_channels is {list(in_channels)}, but '
                    'SimpleFeaturePyramid takes one map: give one index as '
                    'model.backbone.out_indices.'
                )
            (in_channels,) = in_channels
        wrong = [scale for scale in scales if scale not in _SCALES]
        if wrong:
            raise UserError(
                f'model.neck.scales has {wrong[0]}; expected '
                f'{", ".join(map(str, _SCALES))}.'
            )
        self.levels = nn.ModuleList(
            _level(in_channels, out_channels, scale) for scale in scales
        )
        self.extra = nn.ModuleList(
            ConvModule(out_channels, out_channels, 3, 2, 1, act_cfg=None)
            for _ in range(len(scales), num_outs or 0)
        )

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Build the pyramid.

        Args:
            inputs (tuple[Tensor]): One map, has shape (bs, channels, h, w).

        Returns:
            tuple[Tensor, ...]: One map per scale, from the largest on, and
            the extra ones.
        """
        (features,) = inputs
        maps = [level(features) for level in self.levels]
        for halve in self.extra:
            maps.append(halve(maps[-1]))
        return tuple(maps)


class ChannelNorm(nn.LayerNorm):
    """``LayerNorm`` over the channels of (bs, channels, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        """Normalize at each position; the shape is kept."""
        normed = super().forward(features.permute(0, 2, 3, 1))
        return normed.permute(0, 3, 1, 2)


def _level(in_channels: int, out_channels: int, scale: float) -> nn.Module:
    """Resize by a factor and project."""
    steps: list[nn.Module] = []
    channels = in_channels
    if scale == 0.5:
        steps.append(nn.MaxPool2d(2, 2))
    if scale >= 2:
        steps.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        channels //= 2
    if scale == 4:
        steps += [ChannelNorm(channels), nn.GELU()]
        steps.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        channels //= 2
    return nn.Sequential(
        *steps,
        nn.Conv2d(channels, out_channels, 1, bias=False),
        ChannelNorm(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        ChannelNorm(out_channels),
    )
