# Copyright (c) mmdetr authors. All rights reserved.
from mmcv.cnn import build_norm_layer
from mmengine.model import ModuleList


def layer_norms(norm_cfg: dict, embed_dims: int, count: int) -> ModuleList:
    """Build the norms of one layer.

    Args:
        norm_cfg (dict): Config of a norm.
        embed_dims (int): Dimension of the queries.
        count (int): Number of norms.

    Returns:
        ModuleList: The norms.
    """
    return ModuleList(
        build_norm_layer(norm_cfg, embed_dims)[1] for _ in range(count)
    )
