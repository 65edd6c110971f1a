# Copyright (c) mmdetr authors. All rights reserved.
from .attention import (
    BACKENDS,
    VARIABLE,
    attention_backend,
    backend_name,
    describe,
    multi_scale_deformable_attention,
    name_in_config,
)

__all__ = [
    'BACKENDS',
    'VARIABLE',
    'attention_backend',
    'backend_name',
    'describe',
    'multi_scale_deformable_attention',
    'name_in_config',
]
