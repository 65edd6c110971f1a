# Copyright (c) mmdetr authors. All rights reserved.
"""What the checkpoints of other repositories look like, told as tables."""
