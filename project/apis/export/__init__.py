# Copyright (c) mmdetr authors. All rights reserved.
"""Trained detectors as files of other runtimes; see docs/deployment.md."""
