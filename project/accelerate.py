# Copyright (c) mmdetr authors. All rights reserved.
"""Runs mmdet's own detectors on the backends of :mod:`project.ops`.

Importing this module, for which one line in any config is enough, puts them
under mmcv's ``MultiScaleDeformableAttention``::

    custom_imports = dict(imports=['project.accelerate'])

Deformable DETR, DINO, DDQ, Grounding DINO and Mask2Former of mmdet compute the
same then, faster on a CPU. Nothing is changed without the import.
"""

from project.ops.in_mmcv import install

install()
