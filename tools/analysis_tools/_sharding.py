# Copyright (c) mmdetr authors. All rights reserved.
"""Ways in which several processes train."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from _benchmarking import build_detector, random_batch
from _variants import make_optim_wrapper, read_config
from mmengine.device import get_device
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, distributed

from project.engine.hooks.sharding import shard_training
from project.preflight.fast_runtime import apply_checkpointing
from project.utils.errors import UserError

_STATIC = dict(static_graph=True, gradient_as_bucket_view=True)


@contextmanager
def process_group() -> Iterator[tuple[int, str]]:
    """Join the processes that torchrun has started.

    Yields:
        tuple[int, str]: The rank of this one, and its device.

    Raises:
        UserError: If torchrun has not started it.
    """
    if 'LOCAL_RANK' not in os.environ:
        raise UserError(
            'benchmark_sharding.py has to be started with torchrun: '
            'torchrun --nproc-per-node 2 '
            'tools/analysis_tools/benchmark_sharding.py CONFIG.'
        )
    device = get_device()
    if device == 'cpu':
        distributed.init_process_group('gloo')
    else:
        torch.accelerator.set_device_index(int(os.environ['LOCAL_RANK']))
        distributed.init_process_group()
    yield distributed.get_rank(), device
    distributed.destroy_process_group()


class Way:
    """Steps of one training.

    Args:
        path: Config file.
        name: What benchmark_sharding.py offers.
        args: The command line.
        device: Where it runs.
    """

    def __init__(
        self, path: str, name: str, args: argparse.Namespace, device: str
    ) -> None:
        self.path = path
        config = read_config(path, args.cfg_options)
        apply_checkpointing(config)
        detector = model = build_detector(config, device).train()
        self.batch = random_batch(
            tuple(args.shape),
            args.batch_size,
            args.gts,
            detector.bbox_head.num_classes,
            device,
        )
        self.parse_losses = detector.parse_losses
        self.wrapper = make_optim_wrapper(model, config)
        if name == 'fully_shard':
            shard_training(model, self.wrapper.optimizer)
        elif name != 'alone':
            model = MMDistributedDataParallel(
                model,
                device_ids=None if device == 'cpu' else [torch.device(device)],
                **(_STATIC if name == 'static' else {}),
            )
        self.model = model
        self.held = 0

    def __call__(self) -> None:
        """Train one step."""
        losses = self.model(*self.batch, mode='loss')
        self.wrapper.backward(self.parse_losses(losses)[0])
        gradients = [p.grad for p in self.model.parameters()]
        self.wrapper.step()
        states = self.wrapper.optimizer.state.values()
        moments = [value for state in states for value in state.values()]
        self.held = sum(
            map(_bytes, [*self.model.parameters(), *gradients, *moments])
        )
        self.wrapper.zero_grad()


def _bytes(tensor: Tensor | None) -> int:
    """What this process holds of a tensor."""
    if tensor is None:
        return 0
    local = tensor.to_local() if hasattr(tensor, 'to_local') else tensor
    return local.numel() * local.element_size()
