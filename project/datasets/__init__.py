# Copyright (c) mmdetr authors. All rights reserved.
"""Datasets and what prepares them.

Nothing is imported here: what makes the shapes dataset can do without the
seconds that mmdet's datasets take. ``project`` itself registers ``coco``,
``dataset_wrappers`` and ``transforms``.
"""
