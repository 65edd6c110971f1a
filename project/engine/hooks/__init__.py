# Copyright (c) mmdetr authors. All rights reserved.
from .checkpoint_form import CheckpointForm
from .step_seed_hook import StepSeedHook
from .terminal_hook import TerminalHook

__all__ = ['CheckpointForm', 'StepSeedHook', 'TerminalHook']
