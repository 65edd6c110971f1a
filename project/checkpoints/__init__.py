# Copyright (c) mmdetr authors. All rights reserved.
"""Checkpoints: read safely, recognised, converted, compared and written."""
