# Copyright (c) mmdetr authors. All rights reserved.
from .step_seed_hook import StepSeedHook
from .terminal_hook import TerminalHook

__all__ = ['StepSeedHook', 'TerminalHook']
