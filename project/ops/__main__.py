# Copyright (c) mmdetr authors. All rights reserved.
"""Compiles the C++ op for this torch: ``python -m project.ops``."""

import sys

from .building import main

sys.exit(main())
