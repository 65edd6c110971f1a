# Copyright (c) mmdetr authors. All rights reserved.
"""What the checks find out about a dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mmengine.config import ConfigDict

from project.preflight.annotations import AnnotationFile
from project.preflight.box_counts import BoxCount
from project.preflight.image_files import ImageFiles


class Finding(NamedTuple):
    """A fault of a dataset.

    Attributes:
        is_fatal (bool): Whether training or testing on it is refused.
        sentence (str): What is wrong and what was expected.
    """

    is_fatal: bool
    sentence: str


@dataclass
class DatasetReport:
    """What was seen of one dataset of a config.

    Attributes:
        name (str): Its place in the config.
        split (str): ``train``, ``val`` or ``test``.
        config (ConfigDict): Config of the dataset.
        dataset_class (type | None): Its class; None if not registered.
        transforms (list): Its pipeline, those of wrappers last.
        classes (tuple[str, ...]): Names of its classes; empty if unknown.
        source (str): Path of its annotation file.
        folder (str): Folder of its images.
        file (AnnotationFile | None): Its annotations, if they are COCO's.
        count (BoxCount | None): Kept and dropped boxes, if known.
        names (list[str]): File names of the images that were looked at.
        sizes (ndarray | None): (width, height) of these images in the
            annotations, shape (num, 2).
        images (ImageFiles | None): Headers of these images.
        every_image (bool): Whether these are all images of ``file``, in its
            order; otherwise they are a sample.
        max_broken (int): Number of broken images that a training may skip.
        boxes_of (dict[str, int]): Number of kept boxes by class.
        box_sizes (tuple[int, ...]): Number of small, medium and large ones.
        without_boxes (int): Number of images without kept boxes.
        findings (list[Finding]): Faults.
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
        """Add a fault that makes the dataset unusable."""
        self.findings.append(Finding(True, sentence))

    def warn(self, sentence: str) -> None:
        """Add a fault with which it can be used."""
        self.findings.append(Finding(False, sentence))
