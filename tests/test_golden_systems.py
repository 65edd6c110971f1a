"""What the goldens' tests would not notice if their helpers failed."""

from pathlib import Path

import numpy as np
import pytest
import torch

import project  # noqa: F401
from tests.conftest import OWN_GOLDENS
from tests.helpers.golden_systems import Entry, dn_detr
from tests.helpers.goldens import Golden

DETREX_DN = dict(
    source=dict(repository='IDEA-Research/detrex', files=['projects/dn_detr']),
    losses={
        f'loss_{term}{kind}': weight
        for term, weight in (('class', 1.0), ('bbox', 5.0), ('giou', 2.0))
        for kind in ('', '_dn')
    },
)


def detrex_config(name: str, **changes) -> object:
    entry = dict(
        config=f'projects/dn_detr/configs/models/{name}.py',
        num_classes=80,
        num_queries=300,
        dn_groups=5,
        label_noise=0.2,
        box_noise=0.4,
        dropout=0.0,
        label_encoder_entries=81,
    )
    entry.update(changes)
    return dn_detr.build_config({**DETREX_DN, 'model': Entry(entry)})


@pytest.mark.parametrize(
    ('name', 'backbone'),
    [('dn_detr_r50', 'ResNet'), ('dn_detr_r50_dc5', 'DC5ResNet')],
)
def test_the_name_of_a_sources_config_counts(name: str, backbone: str) -> None:
    config = detrex_config(name)
    assert config.backbone.type == backbone
    assert config.encoder.layer_cfg.ffn_cfg.ffn_drop == 0


def test_a_config_that_has_no_counterpart() -> None:
    with pytest.raises(KeyError, match='dn_detr_r34'):
        detrex_config('dn_detr_r34')


@pytest.fixture
def golden() -> Golden:
    return Golden(OWN_GOLDENS / 'h_detr' / 'r50_tricks_small')


def test_an_entry_that_nobody_heeds(golden: Golden) -> None:
    golden.build_config()
    golden.meta['model']['matcher']['power'] = 2
    with pytest.raises(LookupError, match=r'model.matcher.power=2 changes'):
        golden.build_config()


def test_what_was_looked_up_in_other_words() -> None:
    entry = Entry(dict(hidden=8, heads=2, matcher=dict(alpha=1, beta=2)))
    renamed = entry.renamed(dict(hidden='hidden_dim'))
    assert renamed['hidden_dim'] == 8
    assert renamed.get('points', 4) == 4
    assert renamed['matcher']['alpha'] == 1
    assert entry.unseen() == {'heads', 'matcher.beta'}
    assert entry['matcher'].everything() == dict(alpha=1, beta=2)
    assert entry.unseen() == {'heads'}


def test_elements_of_gradients_are_compared() -> None:
    """The same norm with another sign is another gradient."""
    golden = Golden(OWN_GOLDENS / 'hpr' / 'dino_r50_empty')
    name = 'gradhead.decoder.layers.0.merger_SA.weights'
    elements = torch.from_numpy(np.asarray(golden.arrays[name]))
    golden.compare_elements(name, elements * (1 + 1e-9))
    assert golden.mismatches == []
    golden.compare_elements(name, -elements)
    golden.compare_elements(name, elements[:-1])
    first, second = golden.mismatches
    assert name in first
    assert 'expected' in first
    assert 'shape' in second


def test_own_goldens_are_of_every_system() -> None:
    folders = {path.parent.name for path in Path(OWN_GOLDENS).rglob('*.npz')}
    assert {'anchor_detr', 'deta', 'dn_detr', 'h_detr', 'hpr'} <= folders
