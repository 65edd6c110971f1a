# Copyright (c) mmdetr authors. All rights reserved.
"""Detectors that stop at the first NaN or infinity."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import DetDataSample, OptSampleList, SampleList
from mmengine.dist import all_gather_object, all_reduce
from mmengine.logging import MessageHub
from torch import Tensor, nn

from project.utils.accelerators import device_generator
from project.utils.errors import UserError, raise_everywhere, some_of
from project.utils.finite import not_finite
from project.utils.host_copy import on_host

from ..utils.broken_matches import broken_come_first
from ..utils.compiling import not_compiled

_REMEDY = 'lower the learning rate or check the annotations'


class FiniteStepMixin(BaseDetector):
    """Detector that stops with an error when its numbers are not finite.

    The losses are checked in ``parse_losses``, before the backward pass, so
    with any runner and on all ranks at once. The error names the losses and,
    found by running the step once more, the first module whose output is not
    finite. Detections that are not finite stop an evaluation, in which
    metrics would silently count them.

    All losses are copied to the host together: one synchronization before
    the backward pass, instead of mmengine's one for each loss after it.
    """

    _step: '_Step | None' = None

    def forward(
        self,
        inputs: Tensor | dict[str, Tensor],
        data_samples: OptSampleList | dict[str, SampleList] = None,
        mode: str = 'tensor',
    ) -> Any:
        """Compute losses, predictions or raw outputs.

        Args:
            inputs (Tensor | dict[str, Tensor]): Images, as ``loss``,
                ``predict`` or ``_forward`` of the detector takes them.
            data_samples (list[:obj:`DetDataSample`] | dict): Their samples.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            Any: The result of that method.
        """
        if mode != 'loss' or not self.training:
            return super().forward(inputs, data_samples, mode)
        self._step = _Step.begin(inputs, data_samples)
        with broken_come_first():
            return super().forward(inputs, data_samples, mode)

    def parse_losses(
        self, losses: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum the losses of a training step and check that they are finite.

        Args:
            losses (dict[str, Tensor | list[Tensor]]): The losses.

        Returns:
            tuple[Tensor, dict[str, Tensor]]: Their sum, and all of them on
            the host, for the log.

        Raises:
            UserError: If one is NaN or infinite, on this or another rank.
        """
        total, values = super().parse_losses(losses)
        step, self._step = self._step, None
        if not (self.training and torch.is_grad_enabled()):
            return total, values
        values, is_finite = _on_host(values)
        if not is_finite:
            self._stop(values, step)
        return total, values

    def val_step(self, data: dict | tuple | list) -> list:
        """Predict a batch of the validation, see :meth:`test_step`."""
        return self._checked(super().val_step(data))

    def test_step(self, data: dict | tuple | list) -> list:
        """Predict a batch, whose detections have to be finite.

        Args:
            data (dict | tuple | list): As in mmengine.

        Returns:
            list[:obj:`DetDataSample`]: Samples with ``pred_instances``.

        Raises:
            UserError: If a detection is not finite.
        """
        return self._checked(super().test_step(data))

    def _checked(self, samples: list) -> list:
        """Raise if a detection is not finite."""
        detections = {
            f'{index} {key}': sample.pred_instances[key]
            for index, sample in enumerate(samples)
            for key in ('bboxes', 'scores')
            if key in sample.get('pred_instances', ())
        }
        broken = not_finite(detections)
        if broken:
            sample = samples[int(broken[0].split()[0])]
            cause = _weights_told(self) or 'its weights have diverged'
            raise UserError(
                f'The detections in {_name(sample)} hold NaN or infinity, so '
                f'this {type(self).__name__} cannot be evaluated: {cause}.'
            )
        return samples

    @not_compiled
    def _stop(self, values: dict[str, Tensor], step: '_Step | None') -> None:
        """End the training with an error that names the cause.

        All ranks get here together: computing the losses again synchronizes
        them.
        """
        terms = [
            name
            for name, value in values.items()
            if 'loss' in name and name != 'loss' and not value.isfinite()
        ]
        module = step.run_again(self) if step else None
        sentence = None
        if terms or not values['loss'].isfinite():
            cause = _weights_told(self) or (step and step.inputs_told())
            if not cause:
                cause = f'{module or _WITHOUT_MODULE}; {_REMEDY}'
            count = f'{len(terms)} of {len(values) - 1} losses'
            sentence = (
                f'The training stops{_iteration()}: {count} '
                f'({some_of(terms or ["their sum"])}) are NaN or infinite, '
                f'and nothing was trained on them; {cause}.'
            )
        raise_everywhere(all_gather_object(sentence))


_WITHOUT_MODULE = 'the output of every module is finite'


@not_compiled
def _on_host(values: dict[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Bring losses to the host in one transfer.

    Returns:
        tuple[dict[str, Tensor], bool]: The same, and whether those that are
        summed are finite in all processes.
    """
    total = values['loss'].detach()
    summed = [v.detach().to(total) for n, v in values.items() if 'loss' in n]
    broken = (~torch.stack(summed).isfinite()).any().to(total)
    all_reduce(broken, 'max')
    numbers = on_host({**values, '': broken})
    return numbers, not numbers.pop('').item()


@dataclass
class _Step:
    """All that is needed to run a training step once more.

    Args:
        inputs (Tensor | dict[str, Tensor]): Images.
        samples (list[:obj:`DetDataSample`] | dict): Their ground truth.
        random_state (Tensor): State of the host's generator.
        device_state (Tensor, optional): State of the device's generator.
        autocast (tuple[bool, torch.dtype]): Whether autocast was on, and its
            dtype.
    """

    inputs: Tensor | dict[str, Tensor]
    samples: SampleList | dict[str, SampleList]
    random_state: Tensor
    device_state: Tensor | None
    autocast: tuple[bool, torch.dtype]

    @classmethod
    @not_compiled
    def begin(cls, inputs: Any, samples: Any) -> '_Step':
        """Save the state before the step."""
        device = next(_images(inputs)).device
        return cls(
            inputs,
            samples,
            torch.get_rng_state(),
            device_generator(device, 'get_rng_state'),
            (
                torch.is_autocast_enabled(device.type),
                torch.get_autocast_dtype(device.type),
            ),
        )

    def run_again(self, detector: BaseDetector) -> str | None:
        """Find the first module whose output is not finite.

        Returns:
            str | None: Part of the error; None if there is no such module.
        """
        device = next(_images(self.inputs)).device
        torch.set_rng_state(self.random_state)
        device_generator(device, 'set_rng_state', self.device_state)
        is_mixed, dtype = self.autocast
        found: list[str] = []

        def watch(name: str) -> Callable:
            def look(module: nn.Module, inputs: Any, output: Any) -> None:
                tensors = dict(enumerate(_tensors(output)))
                if not found and not_finite(tensors):
                    found.append(f'{name} ({type(module).__name__})')

            return look

        handles = [
            module.register_forward_hook(watch(name))
            for name, module in detector.named_modules()
            if name
        ]
        try:
            with (
                torch.no_grad(),
                torch.autocast(device.type, dtype, enabled=is_mixed),
                broken_come_first(),
            ):
                detector.loss(self.inputs, self.samples)
        except torch.OutOfMemoryError:
            pass  # the graph of the failed step still takes memory
        finally:
            for handle in handles:
                handle.remove()
        if not found:
            return None
        return f'the first output that is not finite is that of {found[0]}'

    def inputs_told(self) -> str | None:
        """Name the first image that is not finite, or whose boxes are not."""
        samples = list(_samples(self.samples))
        images = [image for batch in _images(self.inputs) for image in batch]
        broken = not_finite(dict(enumerate(images)))
        if broken:
            return f'the pixels of {_name(samples[broken[0]])} are not finite'
        boxes = {
            index: getattr(
                sample.gt_instances.bboxes,
                'tensor',
                sample.gt_instances.bboxes,
            )
            for index, sample in enumerate(samples)
        }
        broken = not_finite(boxes)
        if broken:
            return f'the boxes of {_name(samples[broken[0]])} are not finite'
        return None


def _weights_told(detector: nn.Module) -> str | None:
    """Name the weights that are not finite."""
    names = not_finite(detector.state_dict())
    return f'the weights {some_of(names)} are not finite' if names else None


def _iteration() -> str:
    """The current iteration, if a runner has recorded it."""
    iteration = MessageHub.get_current_instance().get_info('iter')
    return '' if iteration is None else f' in iteration {iteration + 1}'


def _images(inputs: Tensor | dict[str, Tensor]) -> Iterator[Tensor]:
    """Yield the batch of images, or those of each branch."""
    yield from inputs.values() if isinstance(inputs, dict) else [inputs]


def _samples(samples: SampleList | dict) -> Iterator[DetDataSample]:
    """Yield the samples in the order of the images."""
    parts = samples.values() if isinstance(samples, dict) else [samples]
    for part in parts:
        yield from part


def _name(sample: DetDataSample) -> str:
    """Path or id of the image."""
    path = sample.metainfo.get('img_path')
    return str(path or f'image {sample.metainfo.get("img_id", "?")}')


def _tensors(output: Any) -> Iterator[Tensor]:
    """Yield all tensors in the output of a module."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _tensors(value)
