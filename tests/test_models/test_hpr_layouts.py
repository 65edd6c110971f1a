"""Models of HPR's configs have the names and shapes of the checkpoints."""

import json
import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

import project  # noqa: F401  registers the models
from tests.helpers.configs import CONFIGS, ROOT

GOLDENS = ROOT / 'tests' / 'data' / 'goldens' / 'hpr'
INDEX = json.loads((GOLDENS / 'keys_index.json').read_text())


def authors_names() -> dict[str, str]:
    """The table of configs/hpr/README.md: the authors' names and ours."""
    text = (CONFIGS / 'hpr' / 'README.md').read_text()
    rows = re.findall(r'\| `(.+?)` \| \[(.+?)\]\(\./(.+?)\.py\) \|', text)
    assert all(name == link for _, name, link in rows)
    return {authors: ours for authors, ours, _ in rows}


NAMES = authors_names()
# A config for each layout.
LAYOUTS = {keys: NAMES[name] for name, keys in INDEX['configs'].items()}


def test_every_config_of_the_authors_has_one_here() -> None:
    assert NAMES.keys() == INDEX['configs'].keys()
    assert len(set(NAMES.values())) == len(NAMES) == 30
    for authors, ours in NAMES.items():
        assert (CONFIGS / 'hpr' / f'{ours}.py').is_file()
        assert ('_lsj_' in ours) == ('lsj' in authors)
        assert ('swin-l' in ours) == ('swinL' in authors)
        epochs = {'1x': '12e|88k', '2x': '24e|176k', '3x': '264k'}
        schedule = epochs[authors.split('_')[-2]]
        assert re.search(rf'-({schedule})_', ours)


@pytest.mark.parametrize('keys', LAYOUTS)
def test_names_and_shapes(keys: str) -> None:
    model = Config.fromfile(CONFIGS / 'hpr' / f'{LAYOUTS[keys]}.py').model
    # Swin asks for values when it is built.
    device = 'cpu' if 'swin' in keys else 'meta'
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device(device):
        built = MODELS.build(model)
    found = {key: list(v.shape) for key, v in built.state_dict().items()}
    assert found == json.loads((GOLDENS / keys).read_text())
