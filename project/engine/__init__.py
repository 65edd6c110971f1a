# Copyright (c) mmdetr authors. All rights reserved.
from .hooks import StepSeedHook, TerminalHook
from .log_processor import BriefLogProcessor
from .runner import DETRRunner

__all__ = [
    'BriefLogProcessor',
    'DETRRunner',
    'StepSeedHook',
    'TerminalHook',
]
