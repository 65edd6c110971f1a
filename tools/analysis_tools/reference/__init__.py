# Copyright (c) mmdetr authors. All rights reserved.
"""Plain formulations that the package is measured and tested against."""
