"""Weights of official repositories without the weights.

The listings ``keys_*.json`` of the goldens name every tensor of a released
checkpoint. Filled with one number each, they need hardly any memory, and the
number tells which tensor it was.
"""

import json
import zlib
from pathlib import Path

import torch
from torch import Tensor

from tests.helpers.configs import ROOT

GOLDENS = ROOT / 'tests' / 'data' / 'goldens'


def key_listings(system: str) -> list[Path]:
    """The listings of one folder of goldens."""
    return sorted((GOLDENS / system).glob('keys_*.json'))


def read_keys(system: str, name: str) -> dict:
    """Read the listing of one layout, such as ``authors_r50_one_stage``."""
    return json.loads((GOLDENS / system / f'keys_{name}.json').read_text())


def number_of(name: str) -> float:
    """The number that stands for a tensor."""
    return float(zlib.crc32(name.encode()))


def numbered_weights(keys: dict) -> dict[str, Tensor]:
    """Weights in which every tensor repeats the number of its own name.

    Aliases hold the number of the name that they repeat. Swin's index
    buffers, which must be right, are left out.
    """
    aliases = keys.get('aliases', {})
    weights = {}
    for name, shape in keys['state_dict'].items():
        if not name.endswith('relative_position_index'):
            number = number_of(aliases.get(name, name))
            one = torch.tensor(number, dtype=torch.float64)
            weights[name] = one.expand(shape)
    return weights
