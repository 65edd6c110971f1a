# Copyright (c) mmdetr authors. All rights reserved.
import copy
from collections.abc import Mapping
from typing import Any

from mmcv.transforms import BaseTransform
from mmdet.datasets import MultiImageMixDataset
from mmdet.datasets.transforms import MultiBranch
from mmdet.registry import DATASETS

from project.utils.errors import UserError

Branches = dict[str, dict[str, Any]]


@DATASETS.register_module()
class MultiBranchMultiImageMixDataset(MultiImageMixDataset):
    """``MultiImageMixDataset`` that mixes images into each branch separately.

    For the data re-augmentation of `HPR
    <https://github.com/ZhaoJingjing713/HPR>`_ with copy-paste. Transforms
    before ``MultiBranch`` see one image; ``MultiBranch`` splits it into
    branches, such as ``weak`` and ``strong``, and each later transform runs
    once per branch with its own random draws, so ``CopyPaste`` pastes objects
    of different images into the branches. Images to mix in come from the
    wrapped dataset, after its pipeline.

    Args:
        dataset (dict | BaseDataset): The wrapped dataset.
        pipeline (Sequence[dict]): Configs of transforms. With a
            ``MultiBranch`` among them an item is
            ``{'inputs': {branch: Tensor}, 'data_samples': {branch:
            DetDataSample}}``, as ``MultiBranchDataPreprocessor`` takes it;
            without, it is that of ``MultiImageMixDataset``.
        skip_type_keys (Sequence[str] | None): Types of transforms to skip.
            Defaults to None.
        max_refetch (int): Number of attempts if a transform or the dataset
            returns None. Defaults to 15.
        lazy_init (bool): Whether to load the annotations later. Defaults to
            False.
    """

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Load an image and transform it.

        Returns:
            dict[str, Any]: Output of the pipeline; after ``MultiBranch`` each
            value is a dict of the branches.

        Raises:
            UserError: If the branches do not have the same keys.
        """
        results = copy.deepcopy(self.dataset[index])
        branches = None
        for transform in self._used_transforms():
            if branches is not None:
                branches = {
                    branch: self._apply(transform, part)
                    for branch, part in branches.items()
                }
                continue
            results = self._apply(transform, results)
            if isinstance(transform, MultiBranch):
                branches = _transposed(results)
                _check_keys(branches)
        if branches is None:
            return results
        _check_keys(branches)
        return _transposed(branches)

    def _used_transforms(self) -> list[BaseTransform]:
        """The transforms that are not skipped."""
        skipped = self._skip_type_keys or ()
        return [
            transform
            for transform, name in zip(
                self.pipeline, self.pipeline_types, strict=True
            )
            if name not in skipped
        ]

    def _apply(self, transform: BaseTransform, results: dict) -> dict:
        """Run one transform, with images to mix in if it needs them."""
        if hasattr(transform, 'get_indexes'):
            results = dict(results, mix_results=self._draw_images(transform))
        for _ in range(self.max_refetch):
            # A failed attempt may have changed its input.
            transformed = transform(copy.deepcopy(results))
            if transformed is not None:
                transformed.pop('mix_results', None)
                return transformed
        raise RuntimeError(
            f'{type(transform).__name__} gave no result in '
            f'{self.max_refetch} attempts.'
        )

    def _draw_images(self, transform: BaseTransform) -> list[dict]:
        """Load the images that a transform mixes in."""
        for _ in range(self.max_refetch):
            indexes = transform.get_indexes(self.dataset)
            if not isinstance(indexes, (list, tuple)):
                indexes = [indexes]
            images = [copy.deepcopy(self.dataset[i]) for i in indexes]
            if all(image is not None for image in images):
                return images
        raise RuntimeError(
            f'No image to mix in by {type(transform).__name__} came through '
            f'the pipeline of the dataset in {self.max_refetch} attempts.'
        )


def _transposed(
    nested: Mapping[str, Mapping[str, Any]],
) -> dict[str, Branches]:
    """Exchange the two levels of keys: branches per key, keys per branch."""
    transposed: dict[str, dict[str, Any]] = {}
    for outer, values in nested.items():
        for inner, value in values.items():
            transposed.setdefault(inner, {})[outer] = value
    return transposed


def _check_keys(branches: Branches) -> None:
    """Raise unless all branches have the same keys."""
    keys = {key for part in branches.values() for key in part}
    for branch, part in branches.items():
        missing = sorted(keys - part.keys())
        if missing:
            raise UserError(
                f'The branch {branch!r} has no {missing[0]!r}, which another '
                f'of the branches {sorted(branches)} has; the pipelines of '
                'MultiBranch have to leave the same keys.'
            )
