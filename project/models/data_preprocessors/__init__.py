# Copyright (c) mmdetr authors. All rights reserved.
from .reaugmentation_data_preprocessor import ReaugmentationDataPreprocessor

__all__ = ['ReaugmentationDataPreprocessor']
