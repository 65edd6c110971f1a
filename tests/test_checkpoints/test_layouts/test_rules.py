# Copyright (c) mmdetr authors. All rights reserved.
"""Name templates and the tables made of them."""

import pytest

from project.checkpoints.layouts.rules import (
    Alias,
    Layout,
    Rule,
    match,
    rename,
)


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('layers.11.norm1.bias', dict(i='11', k='1', leaf='bias')),
        ('layers.x.norm1.bias', None),
        ('layers.1.norm1.scale', None),
        ('layers.1.norm1.bias.more', None),
        ('more.layers.1.norm1.bias', None),
        ('layersX1.norm1.bias', None),
    ],
)
def test_a_template_reads_only_names_of_its_form(name, expected):
    assert match('layers.{i}.norm{k}.{leaf}', name) == expected


def test_a_template_without_fields_reads_its_own_name():
    assert match('transformer.level_embed', 'transformer.level_embed') == {}
    assert match('transformer.level_embed', 'transformer.level_embeds') is None


def test_rename_carries_the_fields_over():
    source, target = '{coder}.{i}.linear1.{leaf}', '{coder}s.ffn{i}.{leaf}'
    name = 'decoder.3.linear1.weight'
    assert rename(name, source, target) == 'decoders.ffn3.weight'
    assert rename('decoder.3.linear2.weight', source, target) is None


@pytest.fixture
def layout():
    return Layout(
        name='toy/here',
        title='toy',
        rules=(
            Rule('mlp.{i}.{leaf}', 'ffn.{i}.{leaf}'),
            Rule('head.{leaf}', 'bbox_head.{leaf}'),
        ),
        aliases=(
            Alias('decoder.head.{leaf}', 'head.{leaf}'),
            Alias('mlp.{i}.{leaf}', 'mlp.0.{leaf}', True, unless=('refine.',)),
        ),
        class_tensors=(),
        configs={},
        max_per_img=100,
    )


def test_layout_names_a_tensor_as_the_source_does(layout):
    assert layout.source_name('ffn.7.bias') == 'mlp.7.bias'
    assert layout.source_name('bbox_head.weight') == 'head.weight'
    assert layout.source_name('neck.weight') == 'neck.weight'


def test_aliases_come_with_the_name_that_counts(layout):
    names = ['head.weight', 'decoder.head.weight', 'mlp.1.bias']
    assert list(layout.aliases_in(names)) == [
        ('decoder.head.weight', 'head.weight', False),
        ('mlp.1.bias', 'mlp.0.bias', True),
    ]
    assert list(layout.aliases_in([*names, 'refine.weight'])) == [
        ('decoder.head.weight', 'head.weight', False)
    ]
