# Copyright (c) mmdetr authors. All rights reserved.
"""Checks the masks of annotations if masks are needed."""

from collections.abc import Sequence

import numpy as np

from project.preflight.annotations import AnnotationFile
from project.preflight.coco_json import BROKEN_MASK, NO_MASK

_PROBLEMS = {
    NO_MASK: "has no 'segmentation'",
    BROKEN_MASK: "has a 'segmentation' that is neither polygons of finite "
    'numbers nor RLE of the size of its image',
}


def mask_problem(
    file: AnnotationFile,
    chosen: np.ndarray,
    classes: Sequence[str],
    reader: str,
) -> str | None:
    """Find a mask that is missing or cannot be drawn.

    Args:
        file (AnnotationFile): The annotations.
        chosen (ndarray): Annotations that need a mask, bool, shape (num,).
        classes (Sequence[str]): Names of the classes.
        reader (str): What needs the masks, for the message.

    Returns:
        str | None: A message; None if there is no such mask.
    """
    for state, problem in _PROBLEMS.items():
        wrong = np.flatnonzero(chosen & (file.masks == state))
        if not len(wrong):
            continue
        index = wrong[0]
        category = file.category_names[file.categories[index]]
        others = f' ({len(wrong):,} do)' if len(wrong) > 1 else ''
        return (
            f'Annotation {file.annotation_ids[index]} of {file.path}, a '
            f'{category!r}, {problem}{others}, but {reader}; expected '
            'polygons or RLE in each annotation, or doing without masks.'
        )
    return None
