# Copyright (c) mmdetr authors. All rights reserved.
"""What a training shows on the terminal; all the rest is in its log file."""

import contextlib
import io
import logging
import os.path as osp
from collections.abc import Iterator

from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.logging.logger import MMFormatter

_PACKAGE = osp.dirname(osp.dirname(osp.abspath(__file__)))
# Said by the libraries about themselves; no user can act on them.
_NOTICES = (
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)
# How the rows of pycocotools' table begin.
_RESULTS = ('Average Precision', 'Average Recall')


class TerminalFilter(logging.Filter):
    """Keeps from the terminal what only a log file is read for.

    Warnings pass at any time, and so does what this package says.

    Attributes:
        phase (str): ``'setup'``: nothing else passes. ``'evaluating'``,
            between epochs: what hooks report passes. ``'running'``: all
            passes but the repeated name of the experiment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.phase = 'setup'

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is for the terminal."""
        message = str(record.msg)
        if getattr(record, 'is_print', False):
            is_result = message.lstrip().startswith(_RESULTS)
            return is_result and self.phase == 'running'
        if record.levelno >= logging.WARNING:
            return not message.startswith(_NOTICES)
        if record.pathname.startswith(_PACKAGE):
            return True
        if self.phase == 'evaluating':
            return osp.basename(osp.dirname(record.pathname)) == 'hooks'
        return self.phase == 'running' and not message.startswith('Exp name')


def quiet_terminal(logger: logging.Logger) -> TerminalFilter | None:
    """Filter what a logger writes to the terminal, not to its files.

    Args:
        logger (Logger): Of a runner. One that shows debugging output is left
            as it is.

    Returns:
        TerminalFilter | None: The filter; None where there is none.
    """
    for handler in logger.handlers:
        # Handlers of files are of derived classes.
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
    """Send what libraries print, such as pycocotools, to the log file."""
    logger = MMLogger.get_current_instance()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        for line in printed.getvalue().splitlines():
            logger.info(line, extra=dict(is_print=True))


class QuietEvaluator(Evaluator):
    """mmengine's evaluator, which keeps what pycocotools prints in the log."""

    def evaluate(self, size: int) -> dict:
        """Compute the metrics.

        Args:
            size (int): Images of the dataset.

        Returns:
            dict: The metrics by name.
        """
        with prints_to_log():
            return super().evaluate(size)
