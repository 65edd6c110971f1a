# Copyright (c) mmdetr authors. All rights reserved.
from .detr_runner import DETRRunner
from .loops import ResumableTrainLoop
from .resolve import resolve_config

__all__ = ['DETRRunner', 'ResumableTrainLoop', 'resolve_config']
