# Copyright (c) mmdetr authors. All rights reserved.
from .convert import (
    LAYOUTS,
    ConvertedCheckpoint,
    convert_state_dict,
    fitting_configs,
    for_finetuning,
    nearest_config,
    recognise,
    with_our_names,
)
from .files import convert_file
from .io import read_weights, write_checkpoint
from .model_check import (
    ModelLayout,
    build_on_meta,
    check_model,
    model_layout,
)

__all__ = [
    'LAYOUTS',
    'ConvertedCheckpoint',
    'ModelLayout',
    'build_on_meta',
    'check_model',
    'convert_file',
    'convert_state_dict',
    'fitting_configs',
    'for_finetuning',
    'model_layout',
    'nearest_config',
    'read_weights',
    'recognise',
    'with_our_names',
    'write_checkpoint',
]
