# Copyright (c) mmdetr authors. All rights reserved.
"""What is looked at before a start: the config, its model and its data."""

from .data import check_data
from .model import check_model
from .variables import resolve_config

__all__ = ['check_data', 'check_model', 'resolve_config']
