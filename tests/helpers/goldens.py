"""Reading goldens, and running a detector as they were run."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import EllipsisType, ModuleType

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from project.checkpoints.conversion import convert_state_dict

from . import weights
from .golden_systems import Entry, system_of


@dataclass
class Golden:
    """One case: its description, its numbers, and what it is checked with."""

    stem: Path
    device: str = 'cpu'
    mismatches: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.meta, self.arrays = weights.load(self.stem)

    @cached_property
    def system(self) -> ModuleType:
        return system_of(self.meta)

    @cached_property
    def source_weights(self) -> dict[str, Tensor]:
        """The reference model's weights, aliases included.

        Indices were left as built, also where ``skip_fill`` does not say so.
        """
        skipped = set(self.meta.get('skip_fill', ()))
        skipped.update(
            name
            for name in self.meta['state_dict']
            if name.endswith('relative_position_index')
        )
        aliases = self.meta.get('aliases', {})
        values = {
            name: torch.from_numpy(np.asarray(weights.fill(name, shape)))
            for name, shape in self.meta['state_dict'].items()
            if name not in skipped and name not in aliases
        }
        for name, change in self.meta.get('overrides', {}).items():
            factor = re.fullmatch(r'fill times (\d+)', change)[1]
            values[name] *= float(factor)
        values.update({alias: values[aliases[alias]] for alias in aliases})
        return values

    def build_config(self) -> ConfigDict:
        """The config of its detector, which heeds all of ``model``."""
        entry = Entry(self.meta['model'])
        config = self.system.build_config({**self.meta, 'model': entry})
        implied = self.system.IMPLIED
        for key in entry.unseen():
            value = self.meta['model']
            for part in key.split('.'):
                value = value[part]
            if value not in implied.get(key, ()):
                raise LookupError(
                    f'{self.stem}.json: model.{key}={value!r} changes nothing'
                )
        return config

    def build(self) -> tuple[nn.Module, dict[str, str]]:
        """The detector with the golden's weights, and our name of each."""
        config = self.build_config()
        state_dict, names = self._converted(config.bbox_head.num_classes)
        self._laid_out_alike = {
            source
            for source, name in names.items()
            if torch.equal(state_dict[name], self.source_weights[source])
        }
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(config)
        model = model.double().to(self.device)
        incompatible = model.load_state_dict(state_dict, strict=False)
        allowed = ('num_batches_tracked', 'relative_position_index')
        missing = [
            name
            for name in incompatible.missing_keys
            if not name.endswith(allowed)
        ]
        assert not missing, missing
        assert not incompatible.unexpected_keys, incompatible.unexpected_keys
        return model, names

    def _converted(
        self, num_classes: int
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The weights under our names, and our name of each."""
        if getattr(self.system, 'NAMES_ARE_OURS', False):
            names = {name: name for name in self.source_weights}
            return self.source_weights, names
        converted = convert_state_dict(
            self.source_weights, num_classes=num_classes
        )
        names = {old: new for new, old in converted.origins.items()}
        for alias, canonical in self.meta.get('aliases', {}).items():
            ours = names.get(canonical, names.get(alias))
            names[alias] = names[canonical] = ours
        return converted.state_dict, names

    def samples(self, images: list[int]) -> list[DetDataSample]:
        """Data samples with the ground truth in pixels."""
        shapes = self.meta['input']['img_shapes']
        batch_shape = tuple(self.meta['input']['batch_shape'][-2:])
        if len(images) < len(shapes):  # evaluated alone: not padded
            batch_shape = tuple(shapes[images[0]])
        return [
            self._sample(shapes[i], batch_shape, self.meta['targets'][i]).to(
                self.device
            )
            for i in images
        ]

    @staticmethod
    def _sample(
        shape: list[int], batch_shape: tuple[int, int], target: dict
    ) -> DetDataSample:
        height, width = shape
        size = torch.tensor([width, height] * 2, dtype=torch.float64)
        boxes = torch.tensor(target['boxes'], dtype=torch.float64)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, width), batch_input_shape=batch_shape
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=bbox_cxcywh_to_xyxy(boxes.reshape(-1, 4)) * size,
            labels=torch.tensor(target['labels'], dtype=torch.long),
        )
        return sample

    def image(self, images: list[int]) -> Tensor:
        """The batch, or some of its images without their padding."""
        batch = torch.from_numpy(self.arrays['img']).double()
        batch = batch.to(self.device)
        shapes = self.meta['input']['img_shapes']
        if len(images) < len(shapes):
            height, width = shapes[images[0]]
            return batch[images, :, :height, :width]
        return batch

    def kept(self, name: str, tensor: Tensor) -> Tensor:
        """The part of a tensor that the golden kept."""
        rule = self.meta.get('subsample', {}).get(name)
        return tensor if rule is None else subsample(tensor, rule)

    def compare(
        self, name: str, ours: Tensor, where: Tensor | None = None
    ) -> None:
        """Note where a tensor leaves the golden, if it does.

        Args:
            name: Of the array.
            ours: The whole tensor.
            where: True where the source's values mean something, for the
                first axes of the tensor. By default everywhere.
        """
        expected = torch.from_numpy(np.asarray(self.arrays[name])).double()
        ours = self.kept(name, ours.detach().cpu()).double()
        if ours.dim() == 4 and expected.dim() == 3:  # a small map, flattened
            ours = ours.flatten(2)
        if ours.shape != expected.shape:
            self.mismatches.append(
                f'{name}: shape {tuple(ours.shape)}, expected '
                f'{tuple(expected.shape)}'
            )
            return
        if where is not None:
            where = self.kept(name, where.cpu())
            ours, expected = ours[where], expected[where]
        tolerance = self.meta['tolerance']['out']
        tolerance *= max(1.0, _largest(expected))
        self._note(name, ours, expected, tolerance)

    def is_laid_out_alike(self, source: str) -> bool:
        """Whether the detector has a tensor as the source has it."""
        return source in self._laid_out_alike

    def compare_elements(self, name: str, ours: Tensor) -> None:
        """Note where elements of a gradient leave the golden, if they do.

        They may differ by what a norm may, of the largest of them.
        """
        expected = torch.from_numpy(np.asarray(self.arrays[name])).double()
        ours = self.kept(name, ours.detach().cpu()).double()
        if ours.shape != expected.shape:
            self.mismatches.append(
                f'{name}: shape {tuple(ours.shape)}, expected '
                f'{tuple(expected.shape)}'
            )
            return
        norms = [
            float(array)
            for key, array in self.arrays.items()
            if key.startswith(name.partition('gradhead.')[0] + 'grad.')
        ]
        tolerance = self.meta['tolerance']['grad_relative']
        allowed = max(tolerance * _largest(expected), 1e-9 * max(norms))
        self._note(name, ours, expected, allowed)

    def compare_relative(
        self,
        name: str,
        ours: float,
        tolerance: float,
        floor: float = 0.0,
        place: tuple[int, ...] = (),
    ) -> None:
        """Note where a number leaves the golden, if it does."""
        expected = float(self.arrays[name][place])
        allowed = tolerance * max(abs(expected), floor)
        self._note(name, torch.tensor(ours), torch.tensor(expected), allowed)

    def _note(
        self, name: str, ours: Tensor, expected: Tensor, allowed: float
    ) -> None:
        if not ours.numel():
            return
        gap = (ours - expected).abs()
        # Infinities of padded proposals agree; NaN never does.
        gap = torch.where(ours == expected, torch.zeros_like(gap), gap)
        worst = gap.nan_to_num(nan=float('inf')).argmax()
        if not gap.flatten()[worst] <= allowed:
            place = np.unravel_index(int(worst), tuple(gap.shape))
            self.mismatches.append(
                f'{name}{[int(i) for i in place]}: '
                f'{ours.flatten()[worst]:.12g}, expected '
                f'{expected.flatten()[worst]:.12g} (off by '
                f'{gap.flatten()[worst]:.3g}, allowed {allowed:.3g})'
            )


def find_goldens(folder: Path) -> list[Path]:
    """Stems of all the cases of a model under a folder.

    Trainings are no cases, see ``trajectories.py``.
    """
    arrays = [
        path
        for path in sorted(folder.rglob('*.npz'))
        if _is_case(json.loads(path.with_suffix('.json').read_text()))
    ]
    if not arrays:
        raise FileNotFoundError(f'no goldens (*.npz) under {folder}')
    return [path.with_suffix('') for path in arrays]


def _is_case(meta: dict) -> bool:
    return 'model' in meta and 'optimiser' not in meta


def subsample(tensor: Tensor, rule: str) -> Tensor:
    """Apply a golden's rule, such as ``flatten(2)[:, :, ::21]``."""
    if rule == 'packbits':
        return torch.from_numpy(np.packbits(tensor.numpy()))
    if rule.startswith('view('):  # of the shape that it has here
        for index in re.findall(r'\[[^]]*\]', rule):
            tensor = subsample(tensor, index)
        return tensor
    flatten, index = re.fullmatch(
        r'(flatten\(\d+\))?\[([\d:., \[\]-]+)\]', rule
    ).groups()
    if flatten:
        tensor = tensor.flatten(int(flatten[8:-1]))
    parts = re.findall(r'\[[\d, ]+\]|\.\.\.|[\d:-]+', index)
    return tensor[tuple(_parse_index(part) for part in parts)]


def _parse_index(text: str) -> slice | int | list[int] | EllipsisType:
    if text.startswith('['):
        return json.loads(text)
    if text == '...':
        return ...
    if ':' not in text:
        return int(text)
    return slice(*(int(part) if part else None for part in text.split(':')))


def _largest(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
