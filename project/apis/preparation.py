# Copyright (c) mmdetr authors. All rights reserved.
"""Prepares images for a model by its test pipeline."""

import threading
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmdet.datasets.transforms import LoadImageFromNDArray
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from project.apis.images import is_path, pixels_of
from project.datasets.broken_images import reason_of
from project.preflight.config_tree import is_a, leaf_pipelines, registered
from project.utils.errors import UserError

_LOCK = threading.Lock()


class Preparation:
    """The test pipeline of a config, for images without annotations.

    It can be pickled for other processes and used by several threads, which
    have separate transforms.

    Args:
        config (Config): A complete config.

    Raises:
        UserError: If its test pipeline does not load an image file.
    """

    def __init__(self, config: Config) -> None:
        self._scope = config.get('default_scope', 'mmdet')
        init_default_scope(self._scope)
        _, _, transforms = next(leaf_pipelines(config, 'test'), ('', {}, []))
        kinds = [registered(str(x['type']), TRANSFORMS) for x in transforms]
        pairs = list(zip(transforms, kinds, strict=True))
        loaders = [x for x, kind in pairs if is_a(kind, LoadImageFromFile)]
        if not loaders:
            raise UserError(
                'The test pipeline of the config has no LoadImageFromFile, '
                'so it is not known how it reads an image.'
            )
        left_out = (LoadImageFromFile, LoadAnnotations)
        self._loader = loaders[0]
        self._others = [x for x, kind in pairs if not is_a(kind, left_out)]
        self._of_thread = threading.local()

    def __call__(self, image: Any, channel_order: str = 'rgb') -> dict:
        """Prepare an image.

        Args:
            image (Any): A path or URL, or an image for
                :func:`~project.apis.images.pixels_of`.
            channel_order (str): Channel order of arrays and tensors.
                Defaults to ``'rgb'``.

        Returns:
            dict: ``inputs`` and ``data_samples``, as in mmdet's datasets.

        Raises:
            UserError: If it cannot be read.
        """
        load, rest = self._transforms()
        if is_path(image):
            loaded = _loaded(load, str(image))
        else:
            pixels = pixels_of(image, channel_order)[..., ::-1]
            as_loader = LoadImageFromNDArray(to_float32=load.to_float32)
            loaded = as_loader(dict(img=np.ascontiguousarray(pixels)))
        return rest(dict(loaded, img_id=0))

    def _transforms(self) -> tuple[LoadImageFromFile, Compose]:
        """The transforms of this thread."""
        if not hasattr(self._of_thread, 'transforms'):
            with _LOCK:
                init_default_scope(self._scope)
                load = TRANSFORMS.build(self._loader)
                rest = Compose([TRANSFORMS.build(x) for x in self._others])
            self._of_thread.transforms = load, rest
        return self._of_thread.transforms

    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k != '_of_thread'}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _of_thread=threading.local())


def _loaded(load: LoadImageFromFile, path: str) -> dict:
    """Load an image file; the error names it."""
    try:
        return load(dict(img_path=path))
    except Exception as error:
        raise UserError(
            f'The image {path} cannot be read: {reason_of(error)}.'
        ) from error
