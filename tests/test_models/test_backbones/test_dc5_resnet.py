import torch
from mmdet.models.backbones import ResNet

from project.models.backbones import DC5ResNet


def test_last_stage_is_dilated_after_its_first_block() -> None:
    net = DC5ResNet(50, out_indices=(3,))
    convs = [block.conv2 for block in net.layer4]
    assert [conv.dilation for conv in convs] == [(1, 1), (2, 2), (2, 2)]
    assert [conv.padding for conv in convs] == [(1, 1), (2, 2), (2, 2)]
    (features,) = net(torch.zeros(1, 3, 64, 96))
    assert features.shape == (1, 2048, 4, 6)


def test_only_the_first_block_differs_from_mmdet() -> None:
    torch.manual_seed(0)
    theirs = ResNet(
        50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), out_indices=(2, 3)
    )
    ours = DC5ResNet(50, out_indices=(2, 3))
    theirs.eval()
    ours.eval()
    ours.load_state_dict(theirs.state_dict())
    img = torch.randn(1, 3, 64, 64)
    (c4, c5), (our_c4, our_c5) = theirs(img), ours(img)
    torch.testing.assert_close(our_c4, c4)
    assert not torch.allclose(our_c5, c5)
    conv = theirs.layer4[0].conv2
    conv.dilation = conv.padding = (1, 1)
    torch.testing.assert_close(ours(img), theirs(img))
