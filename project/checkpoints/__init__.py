# Copyright (c) mmdetr authors. All rights reserved.
"""Safe reading, conversion, comparison and writing of checkpoints."""
