"""A checkpoint has to be one of the model that is to take it."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from project.checkpoints.start_checks import (
    check_checkpoint,
    check_resumable,
    check_start_in_part,
)
from project.utils.errors import UserError


class Head(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classifier = nn.Linear(3, num_classes)
        self.label_embedding = nn.Embedding(num_classes + 1, 3)


class Detector(nn.Module):
    def __init__(self, num_classes: int = 4, num_queries: int = 6) -> None:
        super().__init__()
        self.backbone = nn.BatchNorm2d(2)
        self.query_embedding = nn.Embedding(num_queries, 3)
        self.bbox_head = Head(num_classes)


def save(path: Path, content: Any) -> str:
    torch.save(content, path)
    return str(path)


def weights(**kwargs: int) -> dict[str, Tensor]:
    return dict(Detector(**kwargs).state_dict())


def sentence(path: str, **kwargs: Any) -> str:
    """The message about a checkpoint that is none of the detector."""
    with pytest.raises(UserError) as caught:
        check_checkpoint(path, Detector(), **kwargs)
    message = str(caught.value)
    assert '\n' not in message
    assert path in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'checkpoint.pth'


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('wrapped', [True, False])
def test_the_own_weights_pass(path: Path, prefix: str, wrapped: bool) -> None:
    own = {prefix + name: value for name, value in weights().items()}
    save(path, dict(state_dict=own) if wrapped else own)
    check_checkpoint(str(path), Detector())


def test_a_file_older_than_the_zip_format_passes(path: Path) -> None:
    torch.save(weights(), path, _use_new_zipfile_serialization=False)
    check_checkpoint(str(path), Detector())


def test_counters_of_batch_norm_may_be_missing(path: Path) -> None:
    own = weights()
    del own['backbone.num_batches_tracked']
    check_checkpoint(save(path, own), Detector())


def test_missing_file(path: Path) -> None:
    assert 'does not exist' in sentence(str(path))


def test_other_method(path: Path) -> None:
    other = weights(num_queries=5)
    other['decoder.weight'] = other.pop('backbone.weight')
    message = sentence(save(path, dict(state_dict=other)))
    assert 'no checkpoint of this Detector: 7 of 9 tensors match' in message
    assert 'decoder.weight is not in the model' in message
    assert 'backbone.weight is missing' in message
    assert (
        'query_embedding.weight has shape (5, 3) instead of (6, 3)' in message
    )


def test_only_the_first_differences_are_named(path: Path) -> None:
    other = {f'{i}.weight': torch.zeros(1) for i in range(5)}
    message = sentence(save(path, other))
    assert '0 of 9 tensors match' in message
    # 5 that the model lacks and 8 of its own, without the counter
    assert message.endswith('and 10 more differ.')


def test_other_number_of_classes(path: Path) -> None:
    message = sentence(save(path, weights(num_classes=80)))
    assert message.endswith('trained for 80 classes and the model has 4.')


def test_classes_may_be_on_any_axis(path: Path) -> None:
    """As in Rank-DETR's biases, one row for each rank."""

    def with_biases(num_classes: int) -> dict:
        own = weights(num_classes=num_classes)
        return {**own, 'bbox_head.biases.weight': torch.zeros(9, num_classes)}

    class Ranked(Detector):
        def __init__(self) -> None:
            super().__init__()
            self.bbox_head.biases = nn.Embedding(9, 4)

    with pytest.raises(UserError, match='trained for 80 classes and the mode'):
        check_checkpoint(save(path, with_biases(80)), Ranked())
    check_checkpoint(save(path, with_biases(4)), Ranked())


def test_ways_to_fine_tune_are_told(path: Path) -> None:
    save(path, weights(num_classes=80))
    message = sentence(str(path), fine_tuning=True)
    command = f'python -m project convert {path}'
    assert f'with {command} START.pth --num-classes 4, and' in message
    assert message.endswith('set load_from to START.pth.')
    message = sentence(str(path), fine_tuning=True, config='my config.py')
    assert "START.pth --config 'my config.py' --num-classes 4, an" in message
    save(path, weights(num_queries=5))
    message = sentence(str(path), fine_tuning=True)
    assert message.endswith(
        'load_partially=True in the config takes what matches.'
    )


def test_other_number_of_queries_is_not_taken_for_classes(path: Path) -> None:
    message = sentence(save(path, weights(num_queries=5)))
    assert 'query_embedding.weight' in message
    assert 'was trained for' not in message


def test_a_difference_of_two_kinds_is_not_taken_for_classes(
    path: Path,
) -> None:
    other = weights(num_classes=80)
    other['bbox_head.label_embedding.weight'] = torch.zeros(7, 3)
    assert 'was trained for' not in sentence(save(path, other))


@pytest.mark.parametrize(
    'content',
    [
        dict(model=weights(), epoch=3),
        {'transformer.encoder.layers.0.norm1.weight': torch.zeros(3)},
        {'module.backbone.0.body.conv1.weight': torch.zeros(3)},
    ],
)
def test_official_layouts_need_the_converter(path: Path, content: Any) -> None:
    message = sentence(save(path, content))
    assert 'layout of the official code' in message
    assert 'python -m project convert' in message


def test_foreign_objects_are_not_loaded(path: Path) -> None:
    content = dict(state_dict=weights(), args=Path('a'))
    message = sentence(save(path, content))
    assert 'holds pathlib.PosixPath, not tensors alone' in message


def test_the_command_line_of_official_code_is_no_foreign_object(
    path: Path,
) -> None:
    content = dict(model=weights(), args=argparse.Namespace(lr=1))
    message = sentence(save(path, content))
    assert 'python -m project convert' in message


def test_a_file_that_was_cut_short(path: Path) -> None:
    save(path, weights())
    path.write_bytes(path.read_bytes()[:500])
    assert '(500 bytes) is damaged or cut off' in sentence(str(path))


def test_something_else_than_a_dict(path: Path) -> None:
    assert 'holds a list' in sentence(save(path, [1, 2]))


def test_weights_alone_cannot_be_resumed_from(path: Path) -> None:
    save(path, dict(state_dict=weights(), meta=dict(epoch=1)))
    with pytest.raises(UserError, match='no message_hub, optimizer, so'):
        check_resumable(str(path))


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({}, None),
        (dict(meta=None), 'a NoneType as meta'),
        (dict(optimizer=[1]), 'a list as optimizer'),
        (dict(meta=dict(epoch=1)), 'no number as iter'),
        (dict(meta=dict(epoch='one', iter=2)), 'no number as epoch'),
    ],
)
def test_the_state_of_a_training_can_be_resumed_from(
    path: Path, change: dict, words: str | None
) -> None:
    state = dict(
        meta=dict(epoch=1, iter=2),
        message_hub={},
        optimizer={},
        state_dict=weights(),
    )
    save(path, {**state, **change})
    if words is None:
        check_resumable(str(path))
        return
    with pytest.raises(UserError, match=words):
        check_resumable(str(path))


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (dict(state_dict=None), 'a NoneType as state_dict'),
        (dict(state_dict=[1]), 'a list as state_dict'),
        (dict(state_dict={1: torch.zeros(1)}), 'has weights under 1'),
        (dict(state_dict={}), '0 of 9 tensors match'),
        (dict(state_dict=dict(a='b')), '0 of 9 tensors match'),
        (None, 'holds a NoneType'),
        ('text', 'holds a str'),
        (torch.zeros(2), 'holds a Tensor'),
    ],
)
def test_other_structures(path: Path, content: Any, words: str) -> None:
    assert words in sentence(save(path, content))


def test_a_start_in_part_says_how_much_it_takes(path: Path) -> None:
    other = weights(num_queries=5)
    other['decoder.weight'] = other.pop('backbone.weight')
    save(path, dict(state_dict=other))
    taken, told = check_start_in_part(str(path), Detector())
    assert len(taken) == 7
    assert told == (
        f'7 of 9 tensors are taken from {path}; new: backbone.weight, '
        'query_embedding.weight; left out: decoder.weight.'
    )


@pytest.mark.parametrize(
    'content',
    [
        {},
        {'a.weight': torch.zeros(3)},
        {'query_embedding.weight': torch.zeros(1, 1)},
        {'backbone.num_batches_tracked': torch.tensor(3)},
    ],
)
def test_a_start_from_nothing_is_refused(path: Path, content: dict) -> None:
    """Training would begin at random, which nobody asks for so."""
    save(path, dict(state_dict=content))
    with pytest.raises(UserError, match='none of the weights of this Detec'):
        check_start_in_part(str(path), Detector())


def test_what_was_saved_twice_is_no_difference(path: Path) -> None:
    """As DDQ's training leaves branches of the head at the decoder."""
    content = weights()
    content['decoder.classifier.weight'] = content[
        'bbox_head.classifier.weight'
    ].clone()
    check_checkpoint(save(path, dict(state_dict=content)), Detector())
    content['decoder.classifier.weight'] += 1
    message = sentence(save(path, dict(state_dict=content)))
    assert 'decoder.classifier.weight is not in the model' in message


def test_half_of_what_was_saved_twice_is_missing(path: Path) -> None:
    content = weights()
    value = content.pop('bbox_head.classifier.weight')
    content['decoder.classifier.weight'] = value
    message = sentence(save(path, content))
    assert 'bbox_head.classifier.weight is missing' in message
    assert 'decoder.classifier.weight is not in the model' in message
