# Copyright (c) mmdetr authors. All rights reserved.
"""Filters what goes to the terminal; the log file keeps everything."""

import contextlib
import io
import logging
import os.path as osp
from collections.abc import Iterator

from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.logging.logger import MMFormatter

_PACKAGE = osp.dirname(osp.dirname(osp.abspath(__file__)))
# Metrics of ours say what mmdet's say, each time.
_METRICS = osp.join(_PACKAGE, 'evaluation')
# Notices about the libraries themselves, on which no user can act.
_NOTICES = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    'Resumed iteration number is not divisible',  # AccumulatedGradients tells
)
# mmengine, about each weight that a config freezes: their number is shown.
_FROZEN = 'is skipped since its requires_grad=False'
# How the rows of pycocotools' table start.
_RESULTS = ('Average Precision', 'Average Recall')


class TerminalFilter(logging.Filter):
    """Keeps details that belong into the log file off the terminal.

    Warnings and the messages of this package but its metrics always pass.

    Attributes:
        phase (str): ``'setup'``: nothing else passes. ``'evaluating'``,
            between epochs: the reports of hooks pass. ``'running'``:
            everything passes except the repeated experiment name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = 'setup'

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record goes to the terminal."""
        message = str(record.msg)
        if getattr(record, 'is_print', False):
            is_result = message.lstrip().startswith(_RESULTS)
            return is_result and self.phase == 'running'
        if record.levelno >= logging.WARNING:
            is_notice = message.startswith(_NOTICES)
            return not is_notice and not message.endswith(_FROZEN)
        place = record.pathname
        if place.startswith(_PACKAGE) and not place.startswith(_METRICS):
            return True
        if self.phase == 'evaluating':
            return osp.basename(osp.dirname(place)) == 'hooks'
        return self.phase == 'running' and not message.startswith('Exp name')


def quiet_terminal(logger: logging.Logger) -> TerminalFilter | None:
    """Filter what a logger writes to the terminal, not to its files.

    Args:
        logger (Logger): Logger of a runner. At level ``DEBUG`` it is left
            alone.

    Returns:
        TerminalFilter | None: The filter, or None if none was added.
    """
    for handler in logger.handlers:
        # File handlers are subclasses.
        if type(handler) is not logging.StreamHandler:
            continue
        for found in handler.filters:
            if isinstance(found, TerminalFilter):
                return found
        if handler.level > logging.DEBUG:
            chosen = TerminalFilter()
            handler.addFilter(chosen)
            if isinstance(handler.formatter, MMFormatter):
                handler.formatter.info_format = '%(asctime)s  %(message)s'
            return chosen
    return None


@contextlib.contextmanager
def prints_to_log() -> Iterator[None]:
    """Send what libraries such as pycocotools print to the log file."""
    logger = MMLogger.get_current_instance()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            logger.info(line, extra=dict(is_print=True))


class QuietEvaluator(Evaluator):
    """mmengine's evaluator; what pycocotools prints goes to the log file."""

    def evaluate(self, size: int) -> dict:
        """Compute the metrics over a dataset of ``size`` images."""
        with prints_to_log():
            return super().evaluate(size)
