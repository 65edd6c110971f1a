# Copyright (c) mmdetr authors. All rights reserved.
import torch
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


def true_first(mask: Tensor, count: int) -> Tensor:
    """Indices of the True entries of each row, then of the others.

    Args:
        mask (Tensor): Has shape (bs, num_points).
        count (int): Number of indices of a row, at most.

    Returns:
        Tensor: Indices, both kinds in their order, has shape
        (bs, min(count, num_points)).
    """
    length = mask.shape[1]
    # All different, so that the order does not depend on the sort; without
    # a product of a mask and a size, which ONNX's exporter cannot write.
    places = torch.arange(2 * length, device=mask.device)
    keys = torch.where(mask, places[:length], places[length:])
    return keys.topk(min(count, length), dim=1, largest=False).indices
