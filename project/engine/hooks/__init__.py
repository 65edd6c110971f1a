# Copyright (c) mmdetr authors. All rights reserved.
from .accumulated_gradients import AccumulatedGradients
from .checkpoint_form import CheckpointForm
from .finite_hook import FiniteHook
from .one_transfer import OneTransfer
from .sharding import ShardedTraining
from .step_seed_hook import StepSeedHook
from .terminal_hook import TerminalHook
from .validation_loss_hook import ValidationLossHook

__all__ = [
    'AccumulatedGradients',
    'CheckpointForm',
    'FiniteHook',
    'OneTransfer',
    'ShardedTraining',
    'StepSeedHook',
    'TerminalHook',
    'ValidationLossHook',
]
