# Copyright (c) mmdetr authors. All rights reserved.
"""Finds the newest intact checkpoint to resume a training from."""

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
"""File in a work dir with the name of the last checkpoint, by mmengine."""
STOPPED = 'stopped.pth'
"""Checkpoint of a training that was stopped by a signal."""
TEMPLATES = ('epoch_{}.pth', 'iter_{}.pth')
"""Default names of checkpoints of mmengine's hook."""


def own_checkpoints(folder: str, templates: Iterable[str]) -> list[str]:
    """List the checkpoints that trainings have saved in a folder.

    Args:
        folder (str): A folder, which need not exist.
        templates (Iterable[str]): Their names, with ``{}`` for the number of
            epochs or iterations.

    Returns:
        list[str]: File names; files with other names are ignored.
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
    """Find the checkpoint that ``resume`` without a path continues from.

    That is the one named in ``last_checkpoint``, also if the work dir has
    been moved or copied, or else the newest intact one, with a warning.

    Args:
        work_dir (str): Work dir of an earlier training.
        folder (str, optional): Folder of its checkpoints. Defaults to
            ``work_dir``.
        templates (Iterable[str]): See :func:`own_checkpoints`.

    Returns:
        str | None: The checkpoint; None if there was no training.

    Raises:
        UserError: If there are checkpoints but none is intact.
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
    """Read the name of the last checkpoint.

    Returns:
        tuple[str | None, str | None]: The file if it exists, or the problem.
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
    # In a copied work dir the path belongs to the original.
    for candidate in (osp.join(folder, osp.basename(path)), path):
        if osp.isfile(candidate):
            return candidate, None
    return None, f'{marker} names {path}, which does not exist.'


def _problem(path: str) -> str | None:
    """Why a checkpoint cannot be resumed from, if so."""
    try:
        check_resumable(path)
    except UserError as error:
        return str(error)
    return None


def _newest_first(paths: Iterable[str]) -> Iterator[str]:
    """Sort checkpoints by the time in them, which copying keeps."""

    def saved(path: str) -> tuple[str, int]:
        try:
            meta = read_checkpoint(path).get('meta', {})
            return str(meta.get('time', '')), int(meta.get('iter', 0))
        except (UserError, AttributeError, TypeError, ValueError):
            return '', 0

    return iter(sorted(paths, key=saved, reverse=True))
