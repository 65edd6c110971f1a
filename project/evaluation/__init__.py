# Copyright (c) mmdetr authors. All rights reserved.
from .rank_quality import RankQuality

__all__ = ['RankQuality']
