# Copyright (c) mmdetr authors. All rights reserved.
"""Pretrained weights of parts of a model, such as the backbone."""

import os.path as osp
from collections.abc import Container, Iterator, Mapping
from typing import Any

from mmdet.models.detectors import DETR, DeformableDETR
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseModule
from torch import Tensor, nn

from project.checkpoints.addresses import is_address, local_file
from project.checkpoints.comparison import (
    OPTIONAL_SUFFIX,
    named_tensors,
    shapes,
)
from project.checkpoints.reading import read_checkpoint, state_dict
from project.utils.errors import UserError

# torchvision's first weights by depth, which load without torchvision.
_IMAGENET = {
    18: 'resnet18-f37072fd',
    34: 'resnet34-b627a593',
    50: 'resnet50-0676ba61',
    101: 'resnet101-63fe2227',
    152: 'resnet152-394f9c45',
}

_NOT_LOADED = (
    '{path}, from which {name} was to start, is not loaded: the checkpoint '
    'has all weights of {name}.'
)


def pretrained_parts(cfg: Config) -> Iterator[tuple[str, ConfigDict, str]]:
    """Find the parts of the model that start from a local file.

    Yields:
        tuple[str, ConfigDict, str]: Place in the config, such as
        ``model.backbone``, the config of the part, and the ``checkpoint`` of
        its ``Pretrained`` ``init_cfg``, unless that is an address.
    """
    for name, part, path in _parts('model', cfg.get('model')):
        if not is_address(path):
            yield name, part, path


def _parts(name: str, node: Any) -> Iterator[tuple[str, ConfigDict, str]]:
    """Walk through ``node``, which is at ``name`` in the config."""
    if isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from _parts(f'{name}.{index}', child)
    if not isinstance(node, dict):
        return
    init_cfg = node.get('init_cfg')
    if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
        path = init_cfg.get('checkpoint')
        if isinstance(path, str):
            yield name, node, path
    for key, child in node.items():
        if key != 'init_cfg':
            yield from _parts(f'{name}.{key}', child)


def correct_file_names(cfg: Config) -> list[str]:
    """Replace ``*.pt`` by ``*.pth`` where only the latter exists.

    Some configs of HPR's authors name ``backbone_pth/backbone.pt`` for the
    file that the others call ``backbone.pth``.

    Args:
        cfg (Config): A complete config; changed in place.

    Returns:
        list[str]: A sentence for each change.
    """
    changes = []
    for name, part, path in pretrained_parts(cfg):
        other = f'{path}h'
        is_there = osp.isfile(other) and not osp.isfile(path)
        if path.endswith('.pt') and is_there:
            part.init_cfg.checkpoint = other
            changes.append(
                f'{path}, from which {name} is to start, does not exist; '
                f'taking {other} instead.'
            )
    return changes


def leave_out_replaced(
    cfg: Config, model: nn.Module, weights: Mapping[str, Tensor]
) -> dict[str, str]:
    """Skip pretrained weights that a checkpoint replaces.

    If all weights of a part are in the checkpoint, its ``init_cfg`` is removed
    from the model (not from the config), unless its file exists: missing
    files would fail and addresses would be downloaded in vain.

    Args:
        cfg (Config): A complete config.
        model (nn.Module): The model, without wrappers; changed in place.
        weights (Mapping[str, Tensor]): Weights that the model will load.

    Returns:
        dict[str, str]: For each skipped part, by its place in the config, a
        sentence for the log.
    """
    found, left_out = shapes(weights), {}
    for name, _, path in _parts('model', cfg.get('model')):
        module = _submodule(model, name)
        if osp.isfile(path) or module is None:
            continue
        if _has_all(found, name, module):
            module.init_cfg = None
            left_out[name] = _NOT_LOADED.format(path=path, name=name)
    backbone: Any = getattr(model, 'backbone', None)
    # TimmBackbone's, which are timm's to find.
    source = getattr(backbone, 'pretrained', False)
    if source and _has_all(found, 'model.backbone', backbone):
        backbone.pretrained = False
        path = "timm's weights" if source is True else source
        left_out['model.backbone'] = _NOT_LOADED.format(
            path=path, name='model.backbone'
        )
    return left_out


def _has_all(found: Mapping, name: str, module: nn.Module) -> bool:
    """Whether a checkpoint holds all weights of a part."""
    place = name.partition('.')[2]
    expected = {
        f'{place}.{key}'.removeprefix('.'): shape
        for key, shape in shapes(module.state_dict()).items()
        if not key.endswith(OPTIONAL_SUFFIX)
    }
    return bool(expected) and expected.items() <= found.items()


def check_pretrained(
    cfg: Config, model: nn.Module, left_out: Container[str] = ()
) -> None:
    """Raise unless the files exist and hold weights of their parts.

    Addresses are downloaded. If no name of a file matches, mmengine keeps
    random weights, with no more than a line in the log.

    Args:
        cfg (Config): The config after :func:`correct_file_names`.
        model (nn.Module): The model, without wrappers.
        left_out (Container[str]): Skipped parts, see
            :func:`leave_out_replaced`. Defaults to none.

    Raises:
        UserError: If a file is missing, cannot be downloaded or has no
            weights of its part, or the detector would overwrite them.
    """
    if not (cfg.get('load_from') or cfg.get('resume')):
        for name, _, path in _parts('model', cfg.get('model')):
            _check_stays(name, path, model)
    for name, part, path in _parts('model', cfg.get('model')):
        if name in left_out:
            continue
        if is_address(path):
            _download(name, path)
        elif not osp.isfile(path):
            raise UserError(
                f'{path}, from which {name} is to start, does not exist; put '
                f'it there or {_remedy(name, part)}.'
            )
        _check_names(name, part, path, model)


def _check_stays(name: str, path: str, model: nn.Module) -> None:
    """Raise if the detector would overwrite a part's weights.

    DETRs initialize their transformer after all parts have loaded weights.
    """
    parts = ['model']
    if isinstance(model, (DETR, DeformableDETR)):
        parts += ['model.encoder', 'model.decoder']
    if isinstance(model, DetectionTransformer) and name in parts:
        raise UserError(
            f'{name}.init_cfg would load {path} in vain: '
            f'{type(model).__name__} draws the weights of its transformer '
            f'afterwards; use load_from={path!r} instead, with '
            'load_partially=True if other parts or classes differ.'
        )


def _download(name: str, address: str) -> None:
    """Download now; mmengine will read it from the cache."""
    try:
        local_file(address)
    except UserError as error:
        raise UserError(
            f'{name} is to start from {address}, but '
            f'{str(error).rstrip(".")}; get the file in another way and name '
            f'it with --cfg-options {name}.init_cfg.checkpoint=FILE.'
        ) from error


def _remedy(name: str, part: ConfigDict) -> str:
    """The option that replaces the file."""
    other = 'FILE_OR_ADDRESS'
    imagenet = _IMAGENET.get(part.get('depth'))
    if part.get('type') in ('ResNet', 'DC5ResNet') and imagenet:
        other = f'https://download.pytorch.org/models/{imagenet}.pth'
    meaning = ', which are weights of ImageNet' if ':' in other else ''
    return (
        f'name another start with --cfg-options {name}.init_cfg.checkpoint='
        f'{other}{meaning}'
    )


def _check_names(
    name: str, part: ConfigDict, path: str, model: nn.Module
) -> None:
    """Raise if a file has no weights of its part of the model."""
    module = _submodule(model, name)
    if (
        module is None
        or type(module).init_weights is not BaseModule.init_weights
    ):
        return  # loads its weights itself
    prefix = part.init_cfg.get('prefix') or ''
    prefix = prefix if prefix.endswith('.') or not prefix else f'{prefix}.'
    weights = state_dict(path, read_checkpoint(path))
    found = shapes(named_tensors(weights))
    expected = {
        prefix + key: shape
        for key, shape in shapes(module.state_dict()).items()
        if shape  # counters match every model
    }
    if expected and not any(
        found.get(key) == shape for key, shape in expected.items()
    ):
        raise UserError(
            f'{path} has none of the weights of {name}: its names begin with '
            f'{next(iter(weights), None)!r}; expected '
            f'{next(iter(expected))!r}.'
        )


def _submodule(model: nn.Module, name: str) -> BaseModule | None:
    """The module that was built from ``name`` of the config."""
    module: Any = model
    for attribute in name.split('.')[1:]:
        module = getattr(module, attribute, None)
    return module if isinstance(module, BaseModule) else None
