# Copyright (c) mmdetr authors. All rights reserved.
"""What is known of a dataset before it is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmengine.config import ConfigDict

from project.preflight.annotations import AnnotationFile
from project.preflight.box_counts import BoxCount
from project.preflight.image_files import ImageFiles


class Finding(NamedTuple):
    """Something about a dataset that its owner should know.

    Attributes:
        is_fatal (bool): Whether training or testing on it is refused.
        sentence (str): What it is and what was expected.
    """

    is_fatal: bool
    sentence: str


@dataclass
class DatasetReport:
    """What was seen of one dataset of a config.

    Attributes:
        name (str): Where it stands in the config.
        split (str): ``train``, ``val`` or ``test``.
        config (ConfigDict): Its own config.
        dataset_class (type | None): Its class, None if it is not registered.
        transforms (list): What becomes of its images, in their order.
        classes (tuple[str, ...]): What it detects; empty if unknown.
        source (str): Its annotation file.
        folder (str): Where its images lie.
        file (AnnotationFile | None): Its annotations, if they are COCO's.
        count (BoxCount | None): What becomes of its boxes, if it is known.
        names (list[str]): Of the images as the annotations call them.
        sizes (ndarray | None): (width, height) of these as the annotations
            say, shape (num, 2).
        images (ImageFiles | None): What their headers say.
        every_image (bool): Whether these are the images of ``file``, one for
            one; else they are a sample.
        max_broken (int): How many broken images a training may skip.
        boxes_of (dict[str, int]): Boxes that count, by class.
        box_sizes (tuple[int, ...]): How many of them are small, medium and
            large for COCO.
        without_boxes (int): Images that have none of these.
        findings (list[Finding]): What is wrong.
    """

    name: str
    split: str
    config: ConfigDict
    dataset_class: Any
    transforms: Sequence
    classes: tuple[str, ...] = ()
    source: str = ''
    folder: str = ''
    file: AnnotationFile | None = None
    count: BoxCount | None = None
    names: list[str] = field(default_factory=list)
    sizes: Any = None
    images: ImageFiles | None = None
    every_image: bool = False
    max_broken: int = 0
    boxes_of: dict[str, int] = field(default_factory=dict)
    box_sizes: tuple[int, ...] = ()
    without_boxes: int = 0
    findings: list[Finding] = field(default_factory=list)

    def refuse(self, sentence: str) -> None:
        """Add what makes the dataset unusable."""
        self.findings.append(Finding(True, sentence))

    def warn(self, sentence: str) -> None:
        """Add what its owner should know."""
        self.findings.append(Finding(False, sentence))
