# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Callable
from typing import Any

from mmengine.runner import Runner

from project.preflight.build_errors import told_by_config


def _told(name: str) -> Callable:
    """Make a method whose errors name the place in the config."""

    def build(self: Runner, *args: Any, **kwargs: Any) -> Any:
        with told_by_config(self.cfg):
            return getattr(super(ToldBuilding, self), name)(*args, **kwargs)

    build.__name__ = name
    build.__doc__ = getattr(Runner, name).__doc__
    return build


class ToldBuilding(Runner):
    """A runner that says in one sentence which part it cannot build.

    Each method is mmengine's. An exception raised in it becomes a
    :class:`~project.utils.errors.UserError` that names the place in the
    config, with the exception as its cause.
    """

    build_model = _told('build_model')
    build_visualizer = _told('build_visualizer')
    build_log_processor = _told('build_log_processor')
    register_hooks = _told('register_hooks')
    build_train_loop = _told('build_train_loop')
    build_val_loop = _told('build_val_loop')
    build_test_loop = _told('build_test_loop')
    build_optim_wrapper = _told('build_optim_wrapper')
    build_param_scheduler = _told('build_param_scheduler')
