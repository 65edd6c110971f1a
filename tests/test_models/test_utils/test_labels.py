import pytest
import torch
from mmengine.structures import InstanceData

from project.models.utils.labels import gather_labels
from project.utils.errors import UserError
from tests.helpers.waiting_ops import DeviceTensor, WaitingOps


class OnGpu(DeviceTensor):
    """Says so."""

    device = torch.device('cuda', 0)


def gather(*labels: list[int], cls: type = torch.Tensor, **meta) -> tuple:
    instances = [
        InstanceData(
            labels=torch.tensor(of_image, dtype=torch.long).as_subclass(cls)
        )
        for of_image in labels
    ]
    return gather_labels(instances, [meta] * len(labels), 80)


def test_joined() -> None:
    labels, check = gather([0, 79], [], [5])
    assert labels.tolist() == [0, 79, 5]
    check()
    labels, _ = gather([], [])
    assert labels.shape == (0,)


@pytest.mark.parametrize('label', [-1, 80, 2**40])
@pytest.mark.parametrize(
    ('meta', 'name'),
    [
        (dict(img_path='a/b.jpg', img_id=3), "img_path='a/b.jpg'"),
        (dict(img_id=3), 'img_id=3'),
        (dict(), 'image 1 of the batch'),
    ],
)
def test_told_with_its_image(label: int, meta: dict, name: str) -> None:
    with pytest.raises(UserError, match=f'{name} .* label {label},.* 0 to 79'):
        gather([1], [4, label], **meta)


def test_on_a_device_the_check_comes_where_the_host_waits() -> None:
    """The labels start for the host; nothing waits to look at them."""
    with WaitingOps() as ops:
        labels, check = gather([3], [80, -1], cls=OnGpu)
    assert ops.found == []
    assert labels.as_subclass(torch.Tensor).tolist() == [3, 79, 0]
    with pytest.raises(UserError, match=r'image 1 .* label 80'):
        check()
