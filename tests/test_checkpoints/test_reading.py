# Copyright (c) mmdetr authors. All rights reserved.
"""Foreign files are read without running what they hold."""

import argparse
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from project.checkpoints.reading import read_weights
from project.checkpoints.writing import write_checkpoint
from project.utils.errors import UserError

WEIGHTS = {
    'a.weight': torch.arange(6.0).reshape(2, 3),
    'a.bias': torch.ones(2),
}


class Trap:
    """Runs code when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def saved(path: Path, checkpoint: object, **kwargs) -> Path:
    torch.save(checkpoint, path, **kwargs)
    return path


def assert_weights(weights):
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)


def run_way_out(message: str) -> Path:
    """Run the command that a refusal names."""
    command = message.partition('with: ')[2].partition(' (and go on')[0]
    words = shlex.split(command)
    subprocess.run([sys.executable, *words[1:]], check=True)
    return Path(words[-1])


@pytest.mark.parametrize('wrapper', ['model', 'state_dict', None])
@pytest.mark.parametrize('zipped', [True, False])
def test_weights_are_found(tmp_path, wrapper, zipped):
    checkpoint = {wrapper: WEIGHTS, 'epoch': 11} if wrapper else WEIGHTS
    path = saved(
        tmp_path / 'c.pth',
        checkpoint,
        _use_new_zipfile_serialization=zipped,
    )
    assert_weights(read_weights(path))


def test_prefix_of_distributed_training_goes(tmp_path):
    wrapped = {f'module.{name}': t for name, t in WEIGHTS.items()}
    assert_weights(read_weights(saved(tmp_path / 'c.pth', wrapped)))


def test_the_command_line_of_the_authors_is_no_danger(tmp_path):
    args = argparse.Namespace(lr=2e-4, lr_backbone_names=['backbone.0'])
    checkpoint = dict(model=WEIGHTS, args=args, lr_scheduler={}, epoch=11)
    assert_weights(read_weights(saved(tmp_path / 'c.pth', checkpoint)))


@pytest.mark.parametrize('place', ['model', 'args', 'optimizer'])
def test_code_is_refused_and_not_run(tmp_path, place):
    trap = tmp_path / 'sprung'
    checkpoint = dict(model=dict(WEIGHTS), args=None, optimizer={})
    if place == 'args':
        checkpoint['args'] = argparse.Namespace(device=Trap(trap))
    else:
        checkpoint[place]['trap'] = Trap(trap)
    path = saved(tmp_path / 'c.pth', checkpoint)
    with pytest.raises(UserError, match=r'holds \w+\.mkdir, .* run code'):
        read_weights(path)
    assert not trap.exists()


@pytest.mark.parametrize('zipped', [True, False])
def test_number_arrays_are_weights(tmp_path, zipped):
    arrays = {name: t.numpy() for name, t in WEIGHTS.items()}
    path = saved(
        tmp_path / 'arrays.pth',
        dict(model=arrays, iteration=np.int64(3)),
        _use_new_zipfile_serialization=zipped,
    )
    assert_weights(read_weights(path))


def test_what_mmengine_saves_beside_the_weights_is_no_danger(tmp_path):
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    hub = dict(log_scalars={'train/loss': history}, runtime_info={})
    checkpoint = dict(meta={}, message_hub=hub, state_dict=WEIGHTS)
    path = saved(tmp_path / 'epoch_1.pth', checkpoint)
    before = torch.serialization.get_safe_globals()
    assert_weights(read_weights(path))
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_code_beside_what_mmengine_saves_is_not_run(tmp_path):
    trap = tmp_path / 'sprung'
    hub = dict(loss=HistoryBuffer([1.0], [1]), trap=Trap(trap))
    checkpoint = dict(message_hub=hub, state_dict=WEIGHTS)
    path = saved(tmp_path / 'epoch_1.pth', checkpoint)
    with pytest.raises(UserError, match='run code'):
        read_weights(path)
    assert not trap.exists()


def test_plain_pickles_are_refused_with_a_way_out(tmp_path):
    arrays = {name: t.numpy() for name, t in WEIGHTS.items()}
    path = tmp_path / 'R-50.pkl'
    path.write_bytes(pickle.dumps(dict(model=arrays, __author__='me')))
    with pytest.raises(UserError, match='plain pickle') as refusal:
        read_weights(path)
    assert_weights(read_weights(run_way_out(str(refusal.value))))


def test_plain_pickles_are_not_run(tmp_path):
    trap = tmp_path / 'sprung'
    path = tmp_path / 'c.pth'
    path.write_bytes(pickle.dumps(dict(model=Trap(trap))))
    with pytest.raises(UserError, match='could run code'):
        read_weights(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ('zipped', 'kept'),
    [(True, 0), (True, 0.3), (True, 0.6), (True, 0.95), (False, 0.95)],
)
def test_cut_off_files_are_named_damaged(tmp_path, zipped, kept):
    path = saved(
        tmp_path / 'c.pth',
        dict(model=WEIGHTS),
        _use_new_zipfile_serialization=zipped,
    )
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    finding = 'damaged or cut off' if kept else 'empty'
    with pytest.raises(UserError, match=rf'c.pth \(\d+ bytes\) is {finding}'):
        read_weights(path)


def test_web_pages_are_named_damaged(tmp_path):
    path = tmp_path / 'c.pth'
    path.write_text('<html>Too many downloads</html>')
    with pytest.raises(UserError, match="is text that begins with '<html>Too"):
        read_weights(path)


@pytest.mark.parametrize(
    ('checkpoint', 'message'),
    [
        (dict(), 'holds no weights'),
        (dict(model={}), 'holds no weights'),
        ([torch.ones(1)], 'holds no weights'),
        (dict(model=dict(WEIGHTS, lr=0.1)), "a float as 'lr'"),
    ],
)
def test_files_without_weights_are_refused(tmp_path, checkpoint, message):
    with pytest.raises(UserError, match=message):
        read_weights(saved(tmp_path / 'c.pth', checkpoint))


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r'none.pth does not exist'):
        read_weights(tmp_path / 'none.pth')


def test_a_part_of_a_larger_memory_is_written_alone(tmp_path):
    path = tmp_path / 'new' / 'c.pth'
    large = torch.zeros(1_000_000)
    write_checkpoint(dict(state_dict=dict(a=large[:10])), path)
    assert path.stat().st_size < 10_000
    assert torch.load(path)['state_dict']['a'].shape == (10,)


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'c.pth'
    path.write_text('old')
    weights = dict(a=torch.ones(3))
    unwritable = dict(state_dict=weights, meta=lambda: None)
    with pytest.raises(AttributeError, match='lambda'):
        write_checkpoint(unwritable, path)
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]
