import torch

from project.models.layers.roi_features import MemoryRoIAlign
from project.models.layers.transformer.proposal_refiner import ROI_EXTRACTOR


def test_the_op_pools_what_training_pools() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((16, 20), (8, 10), (4, 5), (2, 3))
    size = sum(height * width for height, width in shapes)
    memory = torch.rand(2, size, 8, generator=generator)
    low, extent = torch.rand(2, 2, 30, 2, generator=generator)
    extent = extent**3 * 900 + 1
    low = low * 160 - 20
    boxes = torch.cat([low, low + extent], -1)
    pool = MemoryRoIAlign(ROI_EXTRACTOR)
    assert len(pool.levels(boxes).unique()) == 4
    torch.testing.assert_close(
        pool._as_one_op(memory, boxes, shapes), pool(memory, boxes, shapes)
    )
