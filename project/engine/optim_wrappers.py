# Copyright (c) mmdetr authors. All rights reserved.
"""mmengine's optimizer wrappers, without waits and with bf16 on the CPU."""

import logging
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from project.engine.runner.distributed import has_accelerator
from project.utils.errors import UserError
from project.utils.host_copy import HostCopy

_PRECISION = 'precision'
"""Key in the state of a wrapper, which every checkpoint holds."""
_NAMES = {torch.float16: 'fp16', torch.bfloat16: 'bf16'}


@OPTIM_WRAPPERS.register_module()
class DETROptimWrapper(OptimWrapper):
    """``OptimWrapper`` that does not wait for the norm of the gradients.

    mmengine's waits for the device between clipping and the step. Here the
    norm is copied asynchronously and logged at the next step or when
    :meth:`log_norm` is called, which ``FiniteHook`` does for each line of the
    log. A resumed training warns if its precision has changed. ``DETRRunner``
    uses this class for ``OptimWrapper``; the arguments are the same.
    """

    precision = 'fp32'
    """What the network is computed in: ``'fp32'``, ``'fp16'``, ``'bf16'``."""

    _norm: HostCopy | None = None

    def log_norm(self) -> None:
        """Log the norm of the last gradients, waiting for it if needed."""
        norm, self._norm = self._norm, None
        if norm is not None:
            name = f'train/{self.grad_name}'
            self.message_hub.update_scalar(name, norm.wait().item())

    def _clip_grad(self) -> None:
        """Clip the gradients."""
        self.log_norm()
        parameters = [
            parameter
            for group in self.optimizer.param_groups
            for parameter in group['params']
            if parameter.requires_grad and parameter.grad is not None
        ]
        if parameters:
            norm = self.clip_func(parameters, **self.clip_grad_kwargs)
            if norm is not None:
                if hasattr(norm, 'full_tensor'):  # of split parameters
                    norm = norm.full_tensor()
                dtype = torch.promote_types(norm.dtype, torch.float32)
                self._norm = HostCopy(norm.to(dtype))

    def state_dict(self) -> dict:
        """Get the state of the optimizer, and the precision."""
        return {**super().state_dict(), _PRECISION: self.precision}

    def load_state_dict(self, state_dict: dict) -> None:
        """Resume, with a warning if the precision has changed.

        Args:
            state_dict (dict): Of this wrapper, or of one of mmengine's.
        """
        state = dict(state_dict)
        # mmengine's wrappers do not say; the default of its --amp is fp16.
        was_mixed = 'loss_scaler' in state
        before = state.pop(_PRECISION, 'fp16' if was_mixed else 'fp32')
        if before != self.precision:
            print_log(
                f'The training was in {before} and resumes in '
                f'{self.precision}.',
                'current',
                logging.WARNING,
            )
            state.pop('loss_scaler', None)  # its scale is that of fp16
        super().load_state_dict(state)


@OPTIM_WRAPPERS.register_module()
class DETRAmpOptimWrapper(DETROptimWrapper, AmpOptimWrapper):
    """``AmpOptimWrapper`` that works on the CPU, in bf16.

    In bf16 losses are not scaled: it has the range of float32, and a scaler
    would wait for the device in each step. ``DETRRunner`` uses it for
    ``AmpOptimWrapper``.

    Args:
        loss_scale (float | str | dict): As in mmengine. Defaults to
            ``'dynamic'``.
        dtype (str | torch.dtype, optional): ``'float16'`` or ``'bfloat16'``.
            Defaults to autocast's, which is float16 on a GPU.
        **kwargs: Arguments of ``OptimWrapper``, and ``use_fsdp``.

    Raises:
        UserError: If the device does not support ``dtype``.
    """

    def __init__(
        self,
        loss_scale: float | str | dict = 'dynamic',
        dtype: str | torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        dtype = amp_dtype(dtype)
        if dtype is torch.bfloat16:
            loss_scale = dict(enabled=False)
        if has_accelerator():
            super().__init__(loss_scale, dtype, **kwargs)
        else:  # which mmengine's refuses
            kwargs.pop('use_fsdp', None)
            OptimWrapper.__init__(self, **kwargs)
            self.cast_dtype = dtype
            self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
            self._scale_update_param = None
        self.precision = _NAMES.get(dtype, 'fp32')


def amp_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """Find the dtype of autocast, and check that the device supports it.

    Args:
        dtype (str | torch.dtype, optional): ``optim_wrapper.dtype``. None is
            float16, as in mmengine on a GPU.

    Returns:
        torch.dtype: The dtype.

    Raises:
        UserError: If the device does not support it.
    """
    name = 'float16' if dtype is None else str(dtype).rpartition('.')[2]
    known = AmpOptimWrapper.valid_dtypes
    if name not in known:
        raise UserError(
            f'optim_wrapper.dtype is {dtype!r}; expected one of '
            f'{", ".join(known)}.'
        )
    if not has_accelerator():
        if name != 'bfloat16':
            raise UserError(
                f'Mixed precision with {name} (--amp, AmpOptimWrapper) needs '
                'a GPU and there is none; train in bf16 (--amp bf16) or '
                'without it.'
            )
    elif name == 'bfloat16' and not _has_bf16():
        raise UserError(
            f'{torch.cuda.get_device_name()} does not compute in bf16; train '
            'in fp16 (--amp fp16) or without mixed precision.'
        )
    return getattr(torch, name)


def _has_bf16() -> bool:
    """Whether the GPU computes in bf16; CUDA would emulate it, slowly."""
    if not torch.cuda.is_available():
        return True
    return torch.cuda.is_bf16_supported(including_emulation=False)


def without_mmengines(wrapper: dict) -> dict:
    """Replace mmengine's optimizer wrappers by those of this module.

    Args:
        wrapper (dict): ``optim_wrapper`` of a config.

    Returns:
        dict: A copy; its type is replaced if it was one of mmengine's.

    Raises:
        UserError: If the device does not support its precision.
    """
    kind = wrapper.get('type', 'OptimWrapper')
    kind = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    replaced = {
        OptimWrapper: DETROptimWrapper,
        AmpOptimWrapper: DETRAmpOptimWrapper,
    }.get(kind)
    if replaced is None:
        return wrapper
    if replaced is DETRAmpOptimWrapper:
        amp_dtype(wrapper.get('dtype'))
    return ConfigDict(wrapper, type=replaced)
