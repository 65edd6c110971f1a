"""Weights of official repositories without the weights.

The listings ``keys_*.json`` of the goldens name every tensor of a released
checkpoint. Filled with one number each, they need hardly any memory, and the
number tells which tensor it was.
"""

import json
import re
import zlib

import torch
from torch import Tensor

from tests.helpers.configs import ROOT

GOLDENS = ROOT / 'tests' / 'data' / 'goldens'


def key_listings() -> list[str]:
    """All listings, such as ``h_detr/authors_r50_one_stage``.

    HPR's names are this project's: there is nothing to convert.
    """
    return sorted(
        f'{path.parent.name}/{path.stem.removeprefix("keys_")}'
        for path in GOLDENS.glob('*/keys_*.json')
        if path.parent.name != 'hpr'
    )


def read_keys(listing: str) -> dict:
    """Read a listing, with what it shares with another one."""
    system, _, name = listing.partition('/')
    folder = GOLDENS / system
    keys = json.loads((folder / f'keys_{name}.json').read_text())
    if 'same_state_dict_as' in keys:
        whole = json.loads((folder / keys['same_state_dict_as']).read_text())
        keys = {**whole, **keys}
    if 'shared' in keys:  # DN-DETR's: of two names the shorter one counts
        pairs = (
            sorted((first, second), key=len)
            for second, first in keys['shared'].items()
        )
        keys['aliases'] = {alias: name for name, alias in pairs}
    elif not isinstance(keys.get('aliases'), dict):  # told in notes and specs
        names = keys['state_dict']
        first = {name: _first_name(name) for name in names}
        keys['aliases'] = {k: v for k, v in first.items() if k != v}
    if name.startswith('detrex_'):
        keys['layout'] = 'detrex'
    return keys


def _first_name(name: str) -> str:
    """The name under which a tensor of the heads is listed first.

    Rank-DETR's decoder registers the heads of all layers once more, Anchor
    DETR's layers share one.
    """
    decoder = 'transformer.decoder.'
    if name.startswith((f'{decoder}class_', f'{decoder}bbox_')):
        return name.removeprefix(decoder)
    shared = r'(transformer\.(class|bbox)_embed\.)\d+'
    return re.sub(shared, r'\g<1>0', name)


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
