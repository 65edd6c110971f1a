# Copyright (c) mmdetr authors. All rights reserved.
from .hooks import FiniteHook, StepSeedHook, TerminalHook
from .log_processor import BriefLogProcessor
from .runner import DETRRunner

__all__ = [
    'BriefLogProcessor',
    'DETRRunner',
    'FiniteHook',
    'StepSeedHook',
    'TerminalHook',
]
