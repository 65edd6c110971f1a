# Copyright (c) mmdetr authors. All rights reserved.
from .hooks import (
    FiniteHook,
    StepSeedHook,
    TerminalHook,
    ValidationLossHook,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .log_processor import BriefLogProcessor
from .runner import DETRRunner

__all__ = [
    'BriefLogProcessor',
    'DETRRunner',
    'FiniteHook',
    'LayerDecayOptimWrapperConstructor',
    'StepSeedHook',
    'TerminalHook',
    'ValidationLossHook',
]
