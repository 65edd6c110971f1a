# Copyright (c) mmdetr authors. All rights reserved.
"""Detection in many images and videos, by one process or several."""
