# Copyright (c) mmdetr authors. All rights reserved.
"""A decoder of HPR, and inputs as an encoder would give them."""

import copy
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import Tensor, nn

from project.models.layers.transformer.dino_decoder import DINODecoder
from project.models.layers.transformer.feature_levels import level_geometry
from project.models.layers.transformer.query_groups import (
    QueryGroup,
    QueryGroups,
)
from project.utils.paths import config_path

from . import proposal_refiner  # noqa: F401, registers it


@dataclass
class RefinerBatch:
    """Inputs of a decoder, by keyword."""

    inputs: dict

    @classmethod
    def make(
        cls,
        img_shapes: list[tuple[int, int]],
        num_queries: int,
        num_groups: int = 2,
        group_size: int = 10,
        dtype: torch.dtype = torch.float32,
    ) -> 'RefinerBatch':
        """Random memory, queries and boxes of some images."""
        torch.manual_seed(0)
        batch_shape = [max(sizes) for sizes in zip(*img_shapes, strict=True)]
        shapes = tuple(
            tuple(-(-size // stride) for size in batch_shape)
            for stride in (8, 16, 32, 64)
        )
        num_points = sum(height * width for height, width in shapes)
        bs, total = len(img_shapes), num_queries + num_groups * group_size
        groups = [
            QueryGroup(f'dn{i}', group_size, sees=('matching',))
            for i in range(num_groups)
        ]
        sizes = [[width, height] * 2 for height, width in img_shapes]
        ratios = torch.tensor(sizes, dtype=dtype)[:, None, :2]
        ratios = ratios / torch.tensor(batch_shape[::-1])
        boxes = torch.rand(bs, total, 4, dtype=dtype)
        boxes[..., 2:] = boxes[..., 2:] * 0.5
        return cls(
            dict(
                query=torch.randn(bs, total, 256, dtype=dtype),
                query_pos=None,
                value=torch.randn(bs, num_points, 256, dtype=dtype),
                key_padding_mask=None,
                reference_points=boxes,
                valid_ratios=ratios.expand(-1, 4, -1),
                image_sizes=torch.tensor(sizes, dtype=dtype),
                query_groups=QueryGroups(
                    [*groups, QueryGroup('matching', num_queries)]
                ),
                **level_geometry(shapes, torch.device('cpu')),
            )
        )

    def run(self, decoder: nn.Module, branches: nn.ModuleList) -> dict:
        """Results and gradients of a loss that depends on all of them."""
        inputs = {
            **self.inputs,
            **{
                name: self.inputs[name].clone().requires_grad_()
                for name in ('query', 'value')
            },
        }
        decoder.zero_grad()
        output = decoder(**inputs, reg_branches=branches)
        results = [
            output.hidden_states,
            *output.auxiliary,
            torch.stack(output.references[1:]),
        ]
        loss = sum(
            (result * torch.linspace(-1, 1, result.shape[-1])).square().mean()
            for result in results
        )
        loss.backward()
        gradients = {
            name: parameter.grad
            for name, parameter in decoder.named_parameters()
        }
        gradients.update(
            {f'input.{name}': inputs[name].grad for name in ('query', 'value')}
        )
        return dict(results=results, gradients=gradients)


def decoders(
    num_layers: int, dtype: torch.dtype = torch.float32
) -> tuple[nn.Module, nn.Module, nn.ModuleList]:
    """The package's decoder, the plain one with its weights, box heads."""
    torch.manual_seed(0)
    model = Config.fromfile(config_path('_base_/models/hpr_dino_r50.py')).model
    settings = model.decoder.to_dict()
    settings.update(num_layers=num_layers, look_forward_twice=True)
    decoder = DINODecoder(**copy.deepcopy(settings))
    settings['layer_cfg']['type'] = 'PlainRefinerLayer'
    plain = DINODecoder(**settings)
    for parameter in decoder.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    plain.load_state_dict(decoder.state_dict())
    branches = nn.ModuleList(nn.Linear(256, 4) for _ in range(num_layers))
    for module in (decoder, plain, branches):
        module.to(dtype).train()
    return decoder, plain, branches


def tensors(results: dict) -> dict[str, Tensor]:
    """All the results by name."""
    named = {f'result{i}': t for i, t in enumerate(results['results'])}
    return {**named, **results['gradients']}
