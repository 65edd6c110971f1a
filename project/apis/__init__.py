# Copyright (c) mmdetr authors. All rights reserved.
from .detectors import (
    add_model_arguments,
    load_detector,
    positive_int,
    read_config,
)

__all__ = [
    'add_model_arguments',
    'load_detector',
    'positive_int',
    'read_config',
]
