# Copyright (c) mmdetr authors. All rights reserved.
"""The custom op's kernels for CPUs, written in C++."""

import torch

from .building import find_library
from .triton_op import IS_INTERPRETED


def load() -> str:
    """Load the library with the kernels.

    Returns:
        str: Why it cannot be loaded, or ''.
    """
    if IS_INTERPRETED:
        return "TRITON_INTERPRET puts Triton's kernels in its place"
    library = find_library(torch.__version__)
    if library is None:
        return 'not compiled; python -m project.ops does it in a minute'
    try:
        torch.ops.load_library(library)
    except OSError as error:
        return f'{library} cannot be loaded ({error})'
    return ''
