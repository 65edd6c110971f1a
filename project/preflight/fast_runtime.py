# Copyright (c) mmdetr authors. All rights reserved.
"""Settings for speed and memory on top of a published config."""

from dataclasses import dataclass
from typing import Literal

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import EMAHook
from mmengine.registry import HOOKS

from project.preflight.config_tree import named_dicts, registered_class
from project.utils.errors import UserError
from project.utils.settings import read_settings

_FUSED = ('Adagrad', 'Adam', 'AdamW', 'SGD')
_RESIZES = {'AnyDepthResize', 'DETRResize'}
_DTYPES = {'fp16': 'float16', 'bf16': 'bfloat16'}


@dataclass(frozen=True)
class FastRuntime:
    """The ``fast_runtime`` of a config.

    Args:
        fused_optimizer (bool): Whether Adam, AdamW, SGD and Adagrad update
            all parameters in one kernel.
        torch_resize (bool): Whether ``DETRResize`` and ``AnyDepthResize``
            use ``backend='torch'`` instead of ``'pillow'``.
        channels_last (bool): Whether the backbone uses channels-last memory.
        fold_norms (bool): Whether frozen batch norms of the backbone are
            folded into the convolutions before them.
        tf32 (bool): Whether GPUs multiply matrices in TF32.
        precision (str): ``'fp32'``, or ``'fp16'`` or ``'bf16'`` for mixed
            precision, as ``--amp``.
    """

    fused_optimizer: bool = False
    torch_resize: bool = False
    channels_last: bool = False
    fold_norms: bool = False
    tf32: bool = False
    precision: Literal['fp32', 'fp16', 'bf16'] = 'fp32'


def read_fast_runtime(cfg: Config) -> FastRuntime:
    """Read ``fast_runtime`` of a config; without it everything is off.

    Args:
        cfg (Config): A complete config.

    Returns:
        FastRuntime: The settings.

    Raises:
        UserError: If there is no such setting or value.
    """
    return read_settings(
        FastRuntime(), cfg.get('fast_runtime'), 'fast_runtime'
    )


def apply_fast_runtime(cfg: Config) -> None:
    """Write ``fast_runtime`` into the optimizer and the pipelines.

    Args:
        cfg (Config): A complete config; changed in place. Explicit settings
            of its other parts are kept.
    """
    settings = read_fast_runtime(cfg)
    wrapper = cfg.get('optim_wrapper') or ConfigDict()
    optimizer = wrapper.get('optimizer') or {}
    if settings.fused_optimizer and optimizer.get('type') in _FUSED:
        optimizer.setdefault('fused', not optimizer.get('foreach', False))
    if settings.precision != 'fp32' and wrapper.get('type') in (
        None,
        'OptimWrapper',
    ):
        wrapper.type = 'AmpOptimWrapper'
        wrapper.dtype = _DTYPES[settings.precision]
    if settings.torch_resize:
        for split in ('train', 'val', 'test'):
            loader = cfg.get(f'{split}_dataloader')
            for _, part in named_dicts(loader, split):
                kinds = {part.get('type'), part.get('resize_type')}
                if kinds & _RESIZES and part.get('backend') == 'pillow':
                    part['backend'] = 'torch'


def apply_checkpointing(cfg: Config) -> None:
    """Write ``activation_checkpointing=True`` into the model.

    It becomes ``with_cp`` of the backbone and ``num_cp`` of encoder and
    decoder. mmengine's own values, names of modules, stay: it passes no
    keyword arguments to what it checkpoints.

    Args:
        cfg (Config): A complete config; changed in place.

    Raises:
        UserError: If the detector is not one of this package.
    """
    if cfg.get('activation_checkpointing') is not True:
        return
    model = cfg.model
    owner = registered_class(model, MODELS)
    if not str(getattr(owner, '__module__', '')).startswith('project.'):
        raise UserError(
            'activation_checkpointing=True is for the detectors of this '
            f'package; name the modules of {model.get("type")} in a list.'
        )
    model.backbone.with_cp = True
    for coder in (model.encoder, model.decoder):
        coder.num_cp = coder.num_layers
    cfg.activation_checkpointing = None


def check_sharding(cfg: Config) -> None:
    """Check what does not go together with ``fully_shard=True``.

    Args:
        cfg (Config): A complete config.

    Raises:
        UserError: If it has such a setting.
    """
    if not cfg.get('fully_shard', False):
        return
    wrapper = cfg.get('optim_wrapper') or {}
    is_amp = 'Amp' in str(wrapper.get('type'))
    is_bf16 = 'bfloat16' in str(wrapper.get('dtype'))
    averages = any(
        issubclass(registered_class(hook, HOOKS) or object, EMAHook)
        for hook in cfg.get('custom_hooks') or ()
    )
    found = {
        'EMAHook, which copies whole weights': averages,
        'model_wrapper_cfg, which is for DDP': cfg.get('model_wrapper_cfg'),
        'mixed precision in fp16 (bf16 does)': is_amp and not is_bf16,
    }
    for what, is_there in found.items():
        if is_there:
            raise UserError(
                f'fully_shard=True does not go together with {what}; leave '
                'one of them out.'
            )
