"""Strides of feature levels, found without computing them."""

from torch import Tensor, nn

from project.models.utils.strides import level_strides


class Backbone(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(3, 4, 4, stride=4)
        self.down = nn.Conv2d(4, 4, 2, stride=2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        assert image.shape[-1] == self.size
        first = self.conv(image)
        return first, self.down(first)


def test_strides_of_two_levels() -> None:
    assert level_strides(Backbone(512)) == (4, 8)


def test_a_backbone_of_one_size_of_images_is_left_alone() -> None:
    """As vision transformers are; nothing is known of it."""
    backbone = Backbone(224)
    assert level_strides(backbone) is None
    assert backbone.training
    assert backbone.conv.training
