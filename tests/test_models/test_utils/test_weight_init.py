import math

import torch
from mmdet.models.necks import ChannelMapper

import project  # noqa: F401


def test_convolutions_start_as_pytorch_makes_them() -> None:
    neck = ChannelMapper(
        [64],
        kernel_size=1,
        out_channels=400,
        bias=True,
        act_cfg=None,
        init_cfg=dict(type='PyTorchInit', layer='Conv2d'),
    )
    neck.init_weights()
    conv = neck.convs[0].conv
    bound = 1 / math.sqrt(64)
    for tensor in (conv.weight, conv.bias):
        assert 0.97 * bound < tensor.abs().max() <= bound
    expected = torch.tensor(bound / math.sqrt(3))
    torch.testing.assert_close(conv.weight.std(), expected, rtol=0.02, atol=0)
