# Copyright (c) mmdetr authors. All rights reserved.
"""Tables of the names in checkpoints of other repositories."""
