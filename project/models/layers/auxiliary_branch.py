# Copyright (c) mmdetr authors. All rights reserved.
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass
class AuxiliaryBranch:
    """An auxiliary result of the decoder, and how it is trained.

    Args:
        prefix (str): Put before the names of its losses.
        head (nn.Module): Its head, a ``SetPredictionHead``.
        hidden_states (Tensor): Its queries after each layer, has shape
            (num_decoder_layers, bs, num_queries, dim).
        loss_weight (float): Multiplies all its losses.
    """

    prefix: str
    head: nn.Module
    hidden_states: Tensor
    loss_weight: float
