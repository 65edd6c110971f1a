# Copyright (c) mmdetr authors. All rights reserved.
import os
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from project.utils.errors import UserError


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A backbone of `timm <https://github.com/huggingface/pytorch-image-models>`_.

    Of a convolutional or hierarchical network ``out_indices`` counts stages;
    of a plain ViT it counts blocks, whose features all have the stride of a
    patch: give one, and ``SimpleFeaturePyramid`` as the neck.

    Args:
        model_name (str): Such as ``'convnext_tiny.fb_in22k'``.
        pretrained (bool | str): True for timm's weights of that name, from
            the hub or its cache; or a local file, such as those that timm
            publishes. Loaded when the training begins, unless it starts from
            a checkpoint with all weights of the backbone. Defaults to False.
        out_indices (Sequence[int]): Which features to return.
        norm_eval (bool): Whether to keep the statistics of batch norms as
            they are, which small batches need. Defaults to False.
        with_cp (bool): Whether to recompute activations in the backward pass,
            to save memory. Defaults to False.
        init_cfg (dict, optional): As in mmengine.
        **kwargs: Further arguments of the model in timm, such as
            ``drop_path_rate``.

    Raises:
        UserError: If timm is not installed, or has no such model or features.
    """

    def __init__(
        self,
        model_name: str,
        pretrained: bool | str = False,
        out_indices: Sequence[int] = (1, 2, 3),
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.model_name = model_name
        self.pretrained = pretrained
        self.norm_eval = norm_eval
        self._settings = dict(kwargs, out_indices=tuple(out_indices))
        self.features: Any = self._create()
        if with_cp:
            self._network.set_grad_checkpointing(True)
        patch = getattr(self._network, 'patch_embed', None)
        size = getattr(patch, 'patch_size', 1)
        self._patch = (size, size) if isinstance(size, int) else tuple(size)
        info = self.features.feature_info
        self.out_channels: list[int] = info.channels()
        """Channels of the features."""

    @property
    def _network(self) -> Any:
        """timm's model below its selection of features."""
        return getattr(self.features, 'model', self.features)

    def _create(self, **weights: Any) -> Any:
        """Build timm's model."""
        timm = _timm()
        if not timm.is_model(self.model_name):
            raise UserError(
                f'model.backbone.model_name is {self.model_name!r}, which '
                f'timm {timm.__version__} does not have: timm.list_models() '
                'lists what it has.'
            )
        settings = dict(self._settings, features_only=True, **weights)
        # With timm's own names of weights, by which it groups layers.
        by_name = dict(settings, feature_cls='getter')
        try:
            # Plain ViTs take images of one size otherwise.
            features = timm.create_model(
                self.model_name, dynamic_img_size=True, **by_name
            )
        except TypeError:  # other networks do not know this
            features = timm.create_model(self.model_name, **by_name)
        network = getattr(features, 'model', None)
        if hasattr(network, 'forward_intermediates'):
            return features
        return timm.create_model(self.model_name, **settings)

    def init_weights(self) -> None:
        """Load the pretrained weights; timm has drawn the others."""
        if not self.pretrained:
            super().init_weights()
            return
        weights: dict[str, Any] = dict(pretrained=True)
        if isinstance(self.pretrained, (str, os.PathLike)):
            path = os.fspath(self.pretrained)
            if not os.path.isfile(path):
                raise UserError(
                    f'model.backbone.pretrained is {path}, which does not '
                    "exist; expected a file, or True for timm's own weights."
                )
            weights['pretrained_cfg_overlay'] = dict(file=path)
        try:
            loaded = self._create(**weights)
        except (OSError, RuntimeError) as error:
            reason = str(error).partition('\n')[0]
            raise UserError(
                f'The weights of {self.model_name} cannot be loaded '
                f'({reason}); get them in another way and name the file as '
                'model.backbone.pretrained.'
            ) from error
        self.features.load_state_dict(loaded.state_dict())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute features.

        Args:
            images (Tensor): Has shape (bs, 3, h, w). A ViT sees it padded to
                whole patches.

        Returns:
            tuple[Tensor, ...]: One map per index, of shape
            (bs, channels, h / stride, w / stride).
        """
        height, width = (
            -size % patch
            for size, patch in zip(images.shape[-2:], self._patch, strict=True)
        )
        if height or width:
            images = F.pad(images, (0, width, 0, height))
        return tuple(self.features(images))

    def train(self, mode: bool = True) -> 'TimmBackbone':
        """Switch to training, with ``norm_eval`` except for batch norms."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def layer_ids(self) -> dict[str, int]:
        """Number the layers from the input on, as timm groups them.

        Returns:
            dict[str, int]: Layer of each parameter by its name here: 0 for
            stem or patch embedding, then one per block.
        """
        from timm.models import group_parameters

        network = self._network
        if not hasattr(network, 'group_matcher'):
            raise UserError(
                f'timm does not number the layers of {self.model_name}, so '
                'they have no learning rates of their own.'
            )
        matcher = network.group_matcher(coarse=False)
        layers = group_parameters(network, matcher, reverse=True)
        return {f'features.model.{name}': int(x) for name, x in layers.items()}


def _timm() -> Any:
    """Import timm, which is optional."""
    try:
        import timm
    except ImportError as error:
        raise UserError(
            'TimmBackbone needs timm, which is not installed: pip install timm'
        ) from error
    return timm
