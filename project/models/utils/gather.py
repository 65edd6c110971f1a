# Copyright (c) mmdetr authors. All rights reserved.
from torch import Tensor


def gather_points(tensor: Tensor, indices: Tensor) -> Tensor:
    """Gather points, or queries, of each image.

    Args:
        tensor (Tensor): Has shape (bs, num_points, dim).
        indices (Tensor): Indices of points, has shape (bs, num_chosen).

    Returns:
        Tensor: Has shape (bs, num_chosen, dim).
    """
    dims = tensor.shape[-1]
    return tensor.gather(1, indices[..., None].expand(-1, -1, dims))
