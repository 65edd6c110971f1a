# Copyright (c) mmdetr authors. All rights reserved.
"""Datasets and what prepares them."""
