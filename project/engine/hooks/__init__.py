# Copyright (c) mmdetr authors. All rights reserved.
from .terminal_hook import TerminalHook

__all__ = ['TerminalHook']
