# Copyright (c) mmdetr authors. All rights reserved.
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from project.checkpoints.comparison import named_tensors, shapes
from project.checkpoints.logged_history import make_plain


class CheckpointForm(Hook):
    """Prepares checkpoints for saving and loading.

    Saved checkpoints can be read by ``torch.load(weights_only=True)``. With
    ``load_partially=True`` a training starts from those tensors of a
    checkpoint whose names and shapes fit the model.
    """

    priority = 'VERY_HIGH'  # before EMAHook reads the weights

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Write the history of logged values as tensors."""
        make_plain(checkpoint)

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Drop tensors that do not fit, with ``load_partially=True``."""
        if not runner.cfg.get('load_partially', False) or runner._resume:
            return
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        place = checkpoint.pop('state_dict', None)
        weights = named_tensors(checkpoint if place is None else place)
        expected = shapes(model.state_dict())
        checkpoint['state_dict'] = {
            name: value
            for name, value in weights.items()
            if expected.get(name) == tuple(value.shape)
        }
