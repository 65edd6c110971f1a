# Copyright (c) mmdetr authors. All rights reserved.
from .detr_runner import DETRRunner
from .loops import ResumableTrainLoop

__all__ = ['DETRRunner', 'ResumableTrainLoop']
