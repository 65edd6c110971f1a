"""Trainings of the official code, and the same steps of the shipped configs.

The steps are those of mmengine's Runner: optimiser wrapper, parameter groups,
clipping and schedule are the shipped config's, in float64.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from project.models.layers.dn_query_generator import DenoisingNoise

from .configs import CONFIGS
from .golden_systems import Entry
from .goldens import Golden
from .trajectory_models import candidates, completed_model, shipped_config

KIND = 'training trajectory'


def find_trajectories(folder: Path) -> list[Path]:
    """Stems of all the trajectories in a folder, none if it is not there."""
    return [
        path.with_suffix('')
        for path in sorted(folder.glob('*.json'))
        if json.loads(path.read_text()).get('kind') == KIND
    ]


@dataclass
class Trajectory(Golden):
    """One training: its description, its numbers, and where ours leave it."""

    worst: dict[str, float] = field(default_factory=dict)
    """The largest relative difference, by what was compared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.candidates = candidates(self.meta)
        self.meta['model'] = completed_model(self.meta, self.num_steps)

    def build_config(self) -> ConfigDict:
        """The config of its detector; what was completed may go unread."""
        entry = Entry(self.meta['model'])
        return self.system.build_config({**self.meta, 'model': entry})

    def build(self) -> tuple[nn.Module, dict[str, str]]:
        """The detector with the first weights, and our name of each."""
        model, names = super().build()
        for number in self.candidates.values():
            model.proposal_selector.max_per_level = number
        return model, names

    @property
    def num_steps(self) -> int:
        return len(self.arrays['loss.total'])

    @cached_property
    def config(self) -> Config:
        """The shipped config of the recipe."""
        return Config.fromfile(CONFIGS / shipped_config(self.meta))

    def batch(self, index: int) -> dict:
        """A batch of images and ground truth, as a data loader gives it."""
        shapes = self.meta['input']['img_shapes'][index]
        images = [
            torch.from_numpy(self.arrays[f'img.{index}.{i}'])
            for i in range(len(shapes))
        ]
        samples = [
            self._sample(shape, None, target)
            for shape, target in zip(
                shapes, self.meta['targets'][index], strict=True
            )
        ]
        for sample in samples:
            del sample.batch_input_shape
        # Pipelines give blue, green, red.
        return dict(inputs=[i.flip(0) for i in images], data_samples=samples)

    def batches(self) -> list[dict]:
        """The batch of each step."""
        cycle = len(self.meta['targets'])
        return [self.batch(step % cycle) for step in range(self.num_steps)]

    def schedule(self) -> tuple[list[dict], int]:
        """The shipped schedule with this training's drop, and its epochs.

        The rates fall where the figures say; what they fall to is the
        shipped config's.
        """
        epoch = re.search(
            r'an epoch is (\d+) steps', self.meta['optimiser']['schedule']
        )
        epoch = int(epoch[1]) if epoch else self.num_steps
        rates = self.arrays['lr'][:, 0]
        drops = (np.flatnonzero(np.diff(rates) < 0) + 1).tolist()
        (schedule,) = [
            dict(scheduler)
            for scheduler in self.config.param_scheduler
            if scheduler.type == 'MultiStepLR'
        ]
        by_epoch = schedule['by_epoch'] and all(s % epoch == 0 for s in drops)
        unit = epoch if by_epoch else 1
        schedule.update(
            by_epoch=by_epoch,
            milestones=[step // unit for step in drops],
            end=self.num_steps // unit,
        )
        return [schedule], epoch

    def relative(
        self,
        what: str,
        name: str,
        ours: Tensor,
        expected: Tensor,
        allowed: float,
    ) -> None:
        """Compare numbers; ``allowed`` is relative to the expected ones."""
        gap = (ours - expected).abs() / expected.abs().clamp(min=1e-300)
        gap = torch.where(ours == expected, torch.zeros_like(gap), gap)
        largest = float(gap.nan_to_num(nan=torch.inf).max())
        self.worst[what] = max(self.worst.get(what, 0.0), largest)
        if not largest <= allowed:
            place = int(gap.nan_to_num(nan=torch.inf).flatten().argmax())
            self.mismatches.append(
                f'{name}: {ours.flatten()[place]:.12g}, expected '
                f'{expected.flatten()[place]:.12g} (off by {largest:.3g}, '
                f'allowed {allowed:.3g})'
            )


class Recorder(Hook):
    """Starts from the official weights and notes what the steps do."""

    priority = 'LOWEST'

    def __init__(
        self, state_dict: dict[str, Tensor], snapshots: set[int]
    ) -> None:
        self.state_dict = state_dict
        self.snapshots = snapshots
        self.losses, self.norms, self.rates = [], [], []
        self.decays: dict[str, float] = {}
        self.places: dict[str, int] = {}
        self.weights: dict[int, dict[str, Tensor]] = {}

    def before_train(self, runner: Runner) -> None:
        model = runner.model
        model.double().load_state_dict(self.state_dict, strict=False)
        self.weights[0] = parameters(model)
        for name, parameter in trained_parameters(model):
            self.places[name] = id(parameter)

    def before_train_iter(self, runner: Runner, **kwargs: object) -> None:
        torch.manual_seed(runner.iter)
        groups = {
            parameter: group
            for group in runner.optim_wrapper.optimizer.param_groups
            for parameter in group['params']
        }
        rates = {}
        for name, parameter in trained_parameters(runner.model):
            rates[name] = groups[parameter]['lr']
            self.decays[name] = groups[parameter]['weight_decay']
        self.rates.append(rates)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        self.losses.append({k: v.item() for k, v in outputs.items()})
        norm = runner.message_hub.get_scalar('train/grad_norm')
        self.norms.append(norm.current())
        done = runner.iter + 1
        if done in self.snapshots:
            self.weights[done] = parameters(runner.model)


def trained_parameters(
    model: nn.Module,
) -> Iterator[tuple[str, nn.Parameter]]:
    """Under all their names."""
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            yield name, parameter


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def train(
    trajectory: Trajectory, work_dir: Path
) -> tuple[Recorder, dict[str, str]]:
    """Train the shipped config as the official trainer did.

    Returns:
        tuple[Recorder, dict]: What happened, and our name of each of the
        source's weights.
    """
    model, names = trajectory.build()
    snapshots = {
        int(name.partition('.')[2])
        for name in trajectory.arrays
        if name.startswith('moved.')
    }
    if hasattr(model.data_preprocessor, 'data_preprocessor'):
        # The images come once, not as a weak and a strong copy.
        model.data_preprocessor = model.data_preprocessor.data_preprocessor
    recorder = Recorder(model.state_dict(), snapshots)
    schedule, epoch = trajectory.schedule()
    batches = trajectory.batches()
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        mock.patch.object(Runner, '_init_model_weights'),
    ):
        runner = Runner(
            model=model,
            work_dir=str(work_dir),
            train_dataloader=DataLoader(
                _Steps(batches, epoch), batch_size=1, collate_fn=_only
            ),
            train_cfg=dict(by_epoch=True, max_epochs=len(batches) // epoch),
            optim_wrapper=trajectory.config.optim_wrapper,
            param_scheduler=schedule,
            default_hooks=dict(checkpoint=None, logger=None),
            custom_hooks=[recorder],
            default_scope='mmdet',
            experiment_name=trajectory.stem.name,
        )
        with _noise(trajectory, model, runner):
            runner.train()
    return recorder, names


def _only(batches: list[dict]) -> dict:
    (batch,) = batches
    return batch


class _Steps(Dataset):
    """Gives its batches in turn, whatever it is asked for.

    An epoch may end in the middle of the cycle of batches.
    """

    def __init__(self, batches: list[dict], epoch: int) -> None:
        self.batches = iter(batches)
        self.epoch = epoch

    def __len__(self) -> int:
        return self.epoch

    def __getitem__(self, index: int) -> dict:
        if index >= self.epoch:
            raise IndexError
        return next(self.batches)


@contextmanager
def _noise(
    trajectory: Trajectory, model: nn.Module, runner: Runner
) -> Iterator[None]:
    """Draw the random numbers of the official training."""
    text = trajectory.meta.get('noise')
    if not text:
        yield
        return
    draw = noise_of(text, lambda: runner.iter)
    with mock.patch.object(model.dn_query_generator, 'draw_noise', draw):
        yield


def noise_of(
    text: str, step: Callable[[], int]
) -> Callable[..., DenoisingNoise]:
    """What a description of denoising noise says.

    Args:
        text: Statements such as ``p = float32(r.rand(n))``, in their order,
            where r is ``numpy.random.RandomState(seed + s)`` in step s.
        step: Tells the step.

    Returns:
        Callable: For ``draw_noise`` of a generator of queries.
    """
    seed = int(re.search(r'RandomState\((\d+) \+ s\)', text)[1])
    statements = re.findall(r'(\w+) = ((?:float\d+\()?r\.rand[^;:]*)', text)

    def draw(num: int, device: torch.device) -> DenoisingNoise:
        random = np.random.RandomState(seed + step())
        drawn = {
            _KINDS[name]: torch.from_numpy(_drawn(random, num, call.strip()))
            for name, call in statements
        }
        if 'box_sign' in drawn:
            drawn['box_sign'] = drawn['box_sign'] * 2 - 1
        return DenoisingNoise(**drawn)

    return draw


_KINDS = dict(
    p='label_rand',
    new='labels',
    new_labels='labels',
    box='box_rand',
    part='box_rand',
    sign='box_sign',
    sign01='box_sign',
)
"""Names in descriptions of noise."""


def _drawn(random: np.random.RandomState, num: int, call: str) -> np.ndarray:
    """Draw what ``r.rand(n, 4)`` or ``float32(r.rand(n))`` says."""

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id == 'n':
            return num
        if isinstance(node, ast.Tuple):
            return tuple(map(value, node.elts))
        if not isinstance(node, ast.Call):
            return ast.literal_eval(node)
        arguments = [value(argument) for argument in node.args]
        if isinstance(node.func, ast.Attribute):
            assert node.func.value.id == 'r'
            return getattr(random, node.func.attr)(*arguments)
        return arguments[0].astype(node.func.id)

    return value(ast.parse(call, mode='eval').body)
