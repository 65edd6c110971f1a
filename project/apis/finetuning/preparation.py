# Copyright (c) mmdetr authors. All rights reserved.
"""Prepares the work dir of a fine-tuning, or resumes it."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from project.apis.finetuning.folder import read_folder
from project.apis.finetuning.models import find_model
from project.apis.finetuning.recipe import (
    Options,
    Recipe,
    choose,
    config_text,
    reasons,
)
from project.checkpoints.conversion import (
    ConvertedCheckpoint,
    with_our_names,
)
from project.checkpoints.converter import convert_file
from project.checkpoints.last_checkpoint import (
    MARKER,
    TEMPLATES,
    own_checkpoints,
)
from project.checkpoints.layouts.own_names import has_our_names
from project.checkpoints.model_layout import model_layout
from project.checkpoints.reading import read_weights
from project.checkpoints.verification import check_model
from project.checkpoints.writing import write_checkpoint, write_text
from project.preflight.config_files import read_config_file
from project.utils.errors import UserError

CONFIG = 'finetune.py'
STATE = 'finetune.json'
START = 'start.pth'
ANNOTATIONS = 'annotations'

_SEED = 0


@dataclass(frozen=True)
class Request(Options):
    """What to train; the same request resumes its training.

    Attributes:
        data: Folder of the dataset.
        model: Name of a config, or method and backbone.
        checkpoint: Path or URL to start from; None starts from a pretrained
            backbone.
    """

    data: str
    model: str
    checkpoint: str | None = None


def prepare(request: Request, work_dir: Path) -> list[str]:
    """Write annotations, weights and config of a training.

    If the training has begun, nothing is written. A config that was edited by
    hand is kept.

    Args:
        request: What to train.
        work_dir: Folder of the training; gets ``finetune.py``.

    Returns:
        Lines to print: what the config changes, or what was kept.

    Raises:
        UserError: If data, model or checkpoint do not fit, or ``work_dir`` is
            that of another request.
    """
    state, config = read_state(work_dir), work_dir / CONFIG
    _check_request(state, request, work_dir)
    if not state:
        _check_is_free(work_dir)
    if config.is_file() and has_begun(work_dir):
        return [f'Goes on with the training in {work_dir}.']
    recipe = _recipe(request, work_dir, is_new=not state)
    lines = reasons(recipe)
    if config.is_file() and _digest(config) != state.get('config'):
        lines = [f'{config} was changed by hand and is kept as it is.']
    else:
        text = config_text(recipe)
        # Wherever it is killed, no config of ours is taken for one by hand.
        config.unlink(missing_ok=True)
        write_state(work_dir, config=hashlib.sha256(text.encode()).hexdigest())
        write_text(str(config), text)
    if request.checkpoint is not None:
        num_classes = len(recipe.data.classes)
        lines.append(_convert(request.checkpoint, config, num_classes))
    return lines


def has_begun(work_dir: Path) -> bool:
    """Whether a training has saved something in a work dir."""
    saved = own_checkpoints(str(work_dir), TEMPLATES)
    return bool(saved) or (work_dir / MARKER).is_file()


def _recipe(request: Request, work_dir: Path, is_new: bool) -> Recipe:
    """Read the data, written as COCO's if need be, and choose the settings.

    The state comes first: killed in the middle, the work dir is known as ours.
    """
    base = find_model(request.model)
    cfg = read_config_file(base)
    root, annotations = Path(request.data), work_dir / ANNOTATIONS
    start = None
    if request.checkpoint is not None:
        start = work_dir.resolve() / START
    work_dir.mkdir(parents=True, exist_ok=True)
    write_state(work_dir, request=asdict(request))
    try:
        data = read_folder(root, annotations, _SEED)
        return choose(base, cfg, root, data, request, start)
    except BaseException:
        if is_new:  # so neither was there before
            shutil.rmtree(annotations, ignore_errors=True)
            (work_dir / STATE).unlink(missing_ok=True)
        raise


def read_state(work_dir: Path) -> dict:
    """Read the state of a fine-tuning, empty if there is none."""
    path = work_dir / STATE
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(f'{path} is damaged ({error}); remove it.') from error


def write_state(work_dir: Path, **values: object) -> None:
    """Add to the state of a fine-tuning."""
    path = work_dir / STATE
    text = json.dumps({**read_state(work_dir), **values}, indent=1)
    write_text(str(path), text + '\n')


def _check_request(state: dict, request: Request, work_dir: Path) -> None:
    """Raise if a work dir belongs to another request."""
    asked, begun = asdict(request), state.get('request')
    if begun is None:
        if has_begun(work_dir):
            raise UserError(
                f'{work_dir} holds a training of another kind; choose '
                'another --work-dir.'
            )
        return
    if not has_begun(work_dir):
        return  # nothing is lost
    # A state of an earlier version lacks the newer options.
    begun = {**asdict(Request('', '')), **begun}
    other = [key for key in asked if asked[key] != begun[key]]
    if other:
        key = other[0]
        raise UserError(
            f'{work_dir} holds a fine-tuning with {key} {begun[key]!r}, '
            f'not {asked[key]!r}; repeat its command to go on with it, or '
            'choose another --work-dir.'
        )


def _check_is_free(work_dir: Path) -> None:
    """Raise if what would be written is there and of somebody else."""
    for name in (ANNOTATIONS, START):
        if (work_dir / name).exists():
            raise UserError(
                f'{work_dir} has {name}, which is not of a fine-tuning, and '
                'is left as it is; choose another --work-dir.'
            )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _convert(checkpoint: str, config: Path, num_classes: int) -> str:
    """Convert a checkpoint of any origin and classes to ``start.pth``.

    Returns:
        str: A line that says what carries over and what is new.
    """
    target = config.with_name(START)
    weights = read_weights(checkpoint)
    converted = None
    if has_our_names(weights):
        ours = with_our_names(weights)
        if ours.num_classes == num_classes:
            try:
                check_model(ours, model_layout(config, num_classes))
            except UserError as error:
                raise UserError(f'{checkpoint}: {error}') from error
            write_checkpoint(dict(state_dict=ours.state_dict), target)
            converted = ours
    if converted is None:
        converted, _ = convert_file(
            checkpoint,
            target,
            config=config,
            num_classes=num_classes,
            overwrite=True,
        )
    return _carried_over(checkpoint, converted)


def _carried_over(checkpoint: str, converted: ConvertedCheckpoint) -> str:
    """Say in one line what of a checkpoint carries over and what is new."""
    count, num_new = len(converted.state_dict), len(converted.renewed)
    if not num_new:
        return (
            f'All {count} tensors of {checkpoint} carry over, the '
            f'classifiers too, as it has {converted.num_classes} classes.'
        )
    return (
        f'Of {checkpoint} {count - num_new} tensors carry over; {num_new}, '
        f'which count its {converted.source_classes} classes, are new.'
    )
