# Copyright (c) mmdetr authors. All rights reserved.
from .weight_init import PyTorchInit

__all__ = ['PyTorchInit']
