# Copyright (c) mmdetr authors. All rights reserved.
"""Finds where a training goes on: at its newest checkpoint that is whole."""

import fnmatch
import logging
import os
import os.path as osp
from collections.abc import Iterable, Iterator

from mmengine.logging import print_log

from project.checkpoints.reading import read_checkpoint
from project.checkpoints.start_checks import check_resumable
from project.utils.errors import UserError

MARKER = 'last_checkpoint'
"""File in a work dir that names what mmengine saved last."""
STOPPED = 'stopped.pth'
"""What a training that was asked to end saves, between its checkpoints."""
TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')
"""How mmengine's hook names checkpoints unless a config says otherwise."""


def own_checkpoints(folder: str, templates: Iterable[str]) -> list[str]:
    """List the checkpoints that trainings have left in a folder.

    Args:
        folder (str): A folder, which need not exist.
        templates (Iterable[str]): How they are named, with ``{}`` for the
            number of epochs or iterations.

    Returns:
        list[str]: Their names. A file that a user has put there under a name
        of another form is not among them.
    """
    if not osp.isdir(folder):
        return []
    numbered = [template.replace('{}', '*') for template in templates]
    patterns = [*numbered, *(f'best_*_{name}' for name in numbered), STOPPED]
    return sorted(
        name
        for name in os.listdir(folder)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    )


def find_last_checkpoint(
    work_dir: str,
    folder: str | None = None,
    templates: Iterable[str] = TEMPLATES,
) -> str | None:
    """Find where ``resume`` without a path goes on.

    It is the checkpoint that the work dir names as its last one, by its name
    where the work dir has been moved or copied, or else the newest that is
    whole, which is then told.

    Args:
        work_dir (str): Where an earlier training wrote.
        folder (str, optional): Where it wrote its checkpoints. Defaults to
            ``work_dir``.
        templates (Iterable[str]): See :func:`own_checkpoints`.

    Returns:
        str | None: The checkpoint; None if there was no training.

    Raises:
        UserError: If there are checkpoints and none is whole.
    """
    folder = folder or work_dir
    last, problem = _marked(work_dir, folder)
    if last is not None:
        problem = _problem(last)
        if problem is None:
            return last
    left = [
        osp.join(folder, name) for name in own_checkpoints(folder, templates)
    ]
    problems = {last: problem} if last is not None else {}
    for path in _newest_first(left):
        if path in problems:
            continue
        problems[path] = _problem(path)
        if problems[path] is None:
            print_log(
                f'{problem} The training goes on from {path}.',
                logger='current',
                level=logging.WARNING,
            )
            return path
    if not left and not osp.exists(osp.join(work_dir, MARKER)):
        return None
    raise UserError(
        f'Nothing in {folder} can be resumed from. {problem} Name another '
        'checkpoint with --resume FILE, or start anew with --overwrite.'
    )


def _marked(work_dir: str, folder: str) -> tuple[str | None, str | None]:
    """Read which checkpoint was saved last.

    Returns:
        tuple[str | None, str | None]: The file, if it is there; or what is
        wrong, if any checkpoint is to be expected.
    """
    marker = osp.join(work_dir, MARKER)
    try:
        with open(marker, encoding='utf-8') as file:
            path = file.read().strip()
    except FileNotFoundError:
        return None, f'{marker} is missing.'
    except (OSError, UnicodeDecodeError) as error:
        return None, f'{marker} cannot be read: {error}.'
    if not path:
        return None, f'{marker} is empty.'
    # In a copied work dir the path is that of the original's checkpoint.
    for candidate in (osp.join(folder, osp.basename(path)), path):
        if osp.isfile(candidate):
            return candidate, None
    return None, f'{marker} names {path}, which does not exist.'


def _problem(path: str) -> str | None:
    """Tell what keeps a training from going on from a checkpoint."""
    try:
        check_resumable(path)
    except UserError as error:
        return str(error)
    return None


def _newest_first(paths: Iterable[str]) -> Iterator[str]:
    """Sort checkpoints by when they were saved, which copying keeps."""

    def saved(path: str) -> tuple[str, int]:
        try:
            meta = read_checkpoint(path).get('meta', {})
            return str(meta.get('time', '')), int(meta.get('iter', 0))
        except (UserError, AttributeError, TypeError, ValueError):
            return '', 0

    return iter(sorted(paths, key=saved, reverse=True))
