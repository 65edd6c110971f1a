# Copyright (c) mmdetr authors. All rights reserved.
from .checkpoint_form import CheckpointForm
from .finite_hook import FiniteHook
from .step_seed_hook import StepSeedHook
from .terminal_hook import TerminalHook

__all__ = ['CheckpointForm', 'FiniteHook', 'StepSeedHook', 'TerminalHook']
