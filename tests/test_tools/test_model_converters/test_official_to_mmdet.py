# Copyright (c) mmdetr authors. All rights reserved.
"""The converter's command line, from a released layout to a loaded model."""

import argparse
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.apis import init_detector
from mmengine import Config

from project.checkpoints.conversion import (
    convert_state_dict,
    for_finetuning,
    with_our_names,
)
from project.checkpoints.model_layout import build_on_meta
from project.checkpoints.start_checks import check_checkpoint
from project.preflight.variables import resolve_config
from project.utils.paths import config_path, tool_path
from tests.helpers.checkpoints import numbered_weights, read_keys

TOOL = tool_path('model_converters/official_to_mmdet.py')
R50 = 'h_detr/h-detr_r50_8xb2-12e_coco.py'
HYBRID = 'h_detr/authors_r50_hybrid_tricks'


@pytest.fixture(scope='module')
def convert():
    """The tool's main(), called in this process."""
    return runpy.run_path(str(TOOL))['main']


@pytest.fixture(scope='module')
def weights():
    numbered = numbered_weights(read_keys(HYBRID))
    return {name: tensor.float() / 2**32 for name, tensor in numbered.items()}


@pytest.fixture
def source(tmp_path, weights):
    """A file as the authors' training writes it."""
    checkpoint = dict(
        model=weights,
        optimizer=dict(state={}, param_groups=[]),
        lr_scheduler=dict(step_size=11, last_epoch=12),
        epoch=11,
        args=argparse.Namespace(lr=2e-4, two_stage=True),
    )
    torch.save(checkpoint, tmp_path / 'authors.pth')
    return tmp_path / 'authors.pth'


@pytest.fixture
def target(tmp_path):
    return tmp_path / 'converted.pth'


def refused(convert, capsys, *argv):
    """The sentence with which the tool ends."""
    with pytest.raises(SystemExit) as end:
        convert([str(arg) for arg in argv])
    assert capsys.readouterr().out == ''
    assert end.value.code.startswith('Error: ')
    return end.value.code


def broken(source: Path, change) -> Path:
    """Change the weights of a file."""
    checkpoint = torch.load(source, weights_only=False)
    change(checkpoint['model'])
    torch.save(checkpoint, source)
    return source


def test_from_released_layout_to_detector(tmp_path, source, target, weights):
    """In a process of its own, as a user runs it."""
    run = subprocess.run(
        [sys.executable, str(TOOL), str(source), str(target)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert 'tensors    575 mapped, 56 second names dropped, 53 ' in run.stdout
    assert "H-Deformable-DETR, the authors' repository" in run.stdout
    assert '91 category ids of COCO -> its 80 classes' in run.stdout
    fits = [x for x in run.stdout.splitlines() if x.startswith('fits')]
    assert fits[0].endswith(f'configs/{R50}')
    assert fits[1].endswith('h-detr_r50_8xb2-36e_coco.py')
    assert 'detections 100 per image' in run.stdout
    assert f'written    {target}' in run.stdout
    model = init_detector(
        str(config_path(R50)),
        str(target),
        palette='coco',
        device='cpu',
        cfg_options={'model.backbone.init_cfg': None},
    )
    assert model.dataset_meta['classes'][79] == 'toothbrush'
    state = model.state_dict()
    norm = weights['transformer.decoder.layers.3.norm2.weight']
    assert torch.equal(state['decoder.layers.3.norms.0.weight'], norm)


@pytest.mark.parametrize(
    'entries', [{}, dict(trainer=dict(iteration=89999), iteration=89999)]
)
def test_files_of_detrex_name_its_numerics(
    convert, capsys, tmp_path, target, entries
):
    """Converted there, and trained there."""
    keys = read_keys('h_detr/detrex_r50_two_stage')
    source = tmp_path / 'detrex.pth'
    torch.save(dict(model=numbered_weights(keys), **entries), source)
    convert([str(source), str(target)])
    out = capsys.readouterr().out
    assert 'layout     H-Deformable-DETR, detrex' in out
    fits = [line for line in out.splitlines() if line.startswith('fits')]
    assert fits[0].endswith('h-detr_r50_8xb2-12e_coco-detrex.py')
    assert 'detections 300 per image' in out
    assert torch.load(target)['state_dict']['level_embed'].dtype is (
        torch.float64
    )


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda w: w.update({'transformer.more': torch.ones(1)}),
            'authors.pth: 1 names of the checkpoint are unknown in the '
            'layout h_detr/authors: transformer.more',
        ),
        (
            lambda w: w.pop('transformer.decoder.layers.3.norm2.weight'),
            'names 1 missing: transformer.decoder.layers.3.norm2.weight',
        ),
        (
            lambda w: w.update({'query_embed.weight': torch.ones(900, 256)}),
            '1 of another shape: query_embed.weight [900, 256] instead of '
            '[1800, 256]',
        ),
        (
            lambda w: w.update({'class_embed.0.bias': torch.ones(91)}),
            'differ: transformer.decoder.class_embed.0.bias and '
            'class_embed.0.bias',
        ),
    ],
)
@pytest.mark.parametrize('config', [None, R50])
def test_what_does_not_fit_is_refused(
    convert, capsys, source, target, change, message, config
):
    argv = [broken(source, change), target]
    if config:
        argv += ['--config', config_path(config)]
    assert message in refused(convert, capsys, *argv)
    assert list(target.parent.iterdir()) == [source]


def test_the_way_out_of_a_model_of_ones_own_is_named(
    convert, capsys, tmp_path, source, target
):
    def shorten(weights):
        weights['query_embed.weight'] = torch.ones(400, 256)

    sentence = refused(convert, capsys, broken(source, shorten), target)
    assert 'name your own with --config' in sentence
    config = tmp_path / 'mine.py'
    config.write_text(
        f'_base_ = [{str(config_path(R50))!r}]\n'
        'model = dict(num_queries=100, one2many=dict(num_queries=300))\n'
    )
    convert([str(source), str(target), '--config', str(config)])
    assert f'fits       {config}' in capsys.readouterr().out
    table = torch.load(target)['state_dict']['query_embedding.weight']
    assert table.shape == (400, 256)


def test_an_existing_file_stays(convert, capsys, source, target):
    target.write_text('precious')
    sentence = refused(convert, capsys, source, target)
    assert sentence == f'Error: {target} exists already; give --overwrite'
    assert target.read_text() == 'precious'
    convert([str(source), str(target), '--overwrite'])
    assert len(torch.load(target)['state_dict']) == 628


def test_a_folder_is_no_target(convert, capsys, tmp_path, source):
    sentence = refused(convert, capsys, source, tmp_path, '--overwrite')
    assert sentence.endswith('exists already; name a file')


def test_a_config_of_other_weights_is_refused(convert, capsys, source, target):
    swin = config_path('h_detr/h-detr_swin-t_8xb2-12e_coco.py')
    sentence = refused(convert, capsys, source, target, '--config', swin)
    assert 'missing: backbone.0.body.patch_embed.proj.weight' in sentence
    assert 'unknown: backbone.0.body.conv1.weight' in sentence
    assert not target.exists()


def test_finetuning_says_what_starts_anew(convert, capsys, source, target):
    convert([str(source), str(target), '--num-classes', '5'])
    out = capsys.readouterr().out
    assert 'for fine-tuning with 5 classes' in out
    for i in range(6):
        assert f'bbox_head.cls_branches.{i}.weight: fresh\n' in out
    first_stage = 'bbox_head.cls_branches.6.bias'
    assert f'{first_stage}: rows 0..4 kept (first stage)' in out
    checkpoint = torch.load(target)
    assert 'dataset_meta' not in checkpoint['meta']
    assert checkpoint['meta']['num_classes'] == 5
    shapes = {
        t.shape for n, t in checkpoint['state_dict'].items() if 'cls' in n
    }
    assert shapes == {(5, 256), (5,)}


def test_a_runner_starts_from_the_finetuning_file(convert, source, target):
    convert([str(source), str(target), '--num-classes', '5'])
    cfg = Config.fromfile(config_path(R50))
    cfg.classes = tuple('abcde')
    check_checkpoint(str(target), build_on_meta(resolve_config(cfg).model))


def test_classes_of_the_config_must_be_asked_for(
    convert, capsys, tmp_path, source, target
):
    config = tmp_path / 'mine.py'
    config.write_text(
        f"_base_ = [{str(config_path(R50))!r}]\nclasses = ('cat', 'dog')\n"
    )
    argv = [source, target, '--config', config]
    sentence = refused(convert, capsys, *argv)
    assert 'has 2 classes, the checkpoint 80: give --num-classes 2' in sentence
    convert([*map(str, argv), '--num-classes', '2'])
    assert torch.load(target)['meta']['configs'] == [str(config)]


@pytest.fixture(scope='module')
def ours(weights):
    """The weights as a training here would save them."""
    return convert_state_dict(weights).state_dict


def test_own_checkpoints_are_taken_for_fine_tuning(
    convert, capsys, tmp_path, target, ours
):
    source = tmp_path / 'epoch_12.pth'
    torch.save(dict(meta=dict(epoch=12), state_dict=ours), source)
    convert([str(source), str(target), '--num-classes', '5'])
    out = capsys.readouterr().out
    assert "layout     this project's names, DETR or Deformable DETR" in out
    assert 'tensors    628 mapped, 0 second names dropped, 0 buffers' in out
    assert f'fits       configs/{R50}' in out
    assert 'detections' not in out
    assert 'bbox_head.cls_branches.5.weight: fresh\n' in out
    assert 'cls_branches.6.bias: rows 0..4 kept (first stage)' in out
    meta = torch.load(target)['meta']
    assert meta['converted_from'] == 'epoch_12.pth'
    assert 'dataset_meta' not in meta
    cfg = Config.fromfile(config_path(R50))
    cfg.classes = tuple('abcde')
    check_checkpoint(str(target), build_on_meta(resolve_config(cfg).model))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'names already: load it as it is'),
        (
            ['--num-classes', '80'],
            'names and 80 classes already: load it as it is',
        ),
    ],
)
def test_own_checkpoints_for_the_same_classes_are_ready(
    convert, capsys, tmp_path, target, ours, options, message
):
    source = tmp_path / 'epoch_12.pth'
    torch.save(dict(state_dict=ours), source)
    assert message in refused(convert, capsys, source, target, *options)
    assert not target.exists()


def test_no_classes_are_told_at_once(convert, capsys, source, target):
    with pytest.raises(SystemExit) as end:
        convert([str(source), str(target), '--num-classes', '0'])
    assert end.value.code == 2
    assert '--num-classes' in capsys.readouterr().err


def test_eighty_new_classes_are_not_those_of_coco(
    convert, tmp_path, target, ours
):
    weights = for_finetuning(with_our_names(ours), 365).state_dict
    source = tmp_path / 'epoch_12.pth'
    torch.save(dict(state_dict=weights), source)
    convert([str(source), str(target), '--num-classes', '80'])
    assert 'dataset_meta' not in torch.load(target)['meta']


@pytest.mark.parametrize('options', [[], ['--num-classes', '5']])
def test_the_source_is_never_written(
    convert, capsys, tmp_path, source, options
):
    before = source.read_bytes()
    link = tmp_path / 'link.pth'
    link.symlink_to(source)
    for same in (source, link):
        argv = [source, same, '--overwrite', *options]
        sentence = refused(convert, capsys, *argv)
        assert f'{same} is the checkpoint itself' in sentence
    assert source.read_bytes() == before


def test_traceback_on_demand(convert, tmp_path, target):
    missing = str(tmp_path / 'none.pth')
    with pytest.raises(ValueError, match='does not exist'):
        convert([missing, str(target), '--traceback'])
