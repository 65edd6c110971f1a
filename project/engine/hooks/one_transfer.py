# Copyright (c) mmdetr authors. All rights reserved.
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor

from project.utils.host_copy import on_host


@HOOKS.register_module()
class OneTransfer(Hook):
    """Copies all losses of a step to the host in one transfer.

    mmengine waits for the device once per loss. The detectors of this package
    have their losses on the host already; those of mmdet do not.
    ``DETRRunner`` adds this hook to every training.
    """

    priority = 'HIGHEST'  # before RuntimeInfoHook, which reads them

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: dict | None = None,
    ) -> None:
        """Replace the logged values of the model."""
        numbers = {
            name: value
            for name, value in (outputs or {}).items()
            if isinstance(value, Tensor)
            and value.is_floating_point()
            and value.numel() == 1
        }
        if outputs and numbers:
            outputs.update(on_host(numbers))
