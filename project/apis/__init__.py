# Copyright (c) mmdetr authors. All rights reserved.
from .detectors import load_detector

__all__ = ['load_detector']
