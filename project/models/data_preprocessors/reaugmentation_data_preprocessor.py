# Copyright (c) mmdetr authors. All rights reserved.
from mmdet.models.data_preprocessors import MultiBranchDataPreprocessor
from mmdet.registry import MODELS


@MODELS.register_module()
class ReaugmentationDataPreprocessor(MultiBranchDataPreprocessor):
    """Preprocessor of batches with or without weak and strong branches.

    HPR's data re-augmentation (CVPR 2024) can thus be switched off for the
    last epochs, as strong augmentation in YOLOX, by mmdet's
    ``PipelineSwitchHook``.

    Args:
        data_preprocessor (dict): Config of the preprocessor of each branch
            and of batches without branches.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalize and pad the images of a batch.

        Args:
            data (dict): ``inputs`` and ``data_samples``, each a list over
                the images, or a dict with such a list for each branch.
            training (bool): Whether this is a training step. Defaults to
                False.

        Returns:
            dict: ``inputs`` and ``data_samples``, in the same form; images
            have shape (bs, 3, h, w).
        """
        if not isinstance(data['inputs'], dict):
            return self.data_preprocessor(data, training)
        return super().forward(data, training)
