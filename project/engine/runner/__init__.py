# Copyright (c) mmdetr authors. All rights reserved.
from .detr_runner import DETRRunner
from .loops import ResumableEpochTrainLoop, ResumableTrainLoop

__all__ = ['DETRRunner', 'ResumableEpochTrainLoop', 'ResumableTrainLoop']
