# Copyright (c) mmdetr authors. All rights reserved.
from .detectors import load_detector, positive_int, read_config

__all__ = ['load_detector', 'positive_int', 'read_config']
