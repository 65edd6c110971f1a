# Copyright (c) mmdetr authors. All rights reserved.
"""Datasets, their transforms and generators.

Nothing is imported here, since the generator of the shapes dataset does not
need mmdet's datasets, which take seconds to import. ``project`` registers
``coco``, ``dataset_wrappers`` and ``transforms``.
"""
