# Copyright (c) mmdetr authors. All rights reserved.
"""Runs mmdet's own detectors on the backends of :mod:`project.ops`.

Importing this module replaces the computation in mmcv's
``MultiScaleDeformableAttention``. One line in a config is enough::

    custom_imports = dict(imports=['project.accelerate'])

mmdet's Deformable DETR, DINO, DDQ, Grounding DINO and Mask2Former then give
the same results, faster on a CPU.
"""

from project.ops.in_mmcv import install

install()
