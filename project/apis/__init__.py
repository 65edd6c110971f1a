# Copyright (c) mmdetr authors. All rights reserved.
from .detectors import default_device, load_detector, read_config

__all__ = ['default_device', 'load_detector', 'read_config']
