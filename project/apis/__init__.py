# Copyright (c) mmdetr authors. All rights reserved.
from .detections import Detections
from .detectors import Detector, load_detector

__all__ = ['Detections', 'Detector', 'load_detector']
