# Copyright (c) mmdetr authors. All rights reserved.
"""The one exception type that a user is meant to read."""

from collections.abc import Iterable


class UserError(ValueError):
    """Input that cannot work, told in one sentence.

    The sentence names the file, key or value at fault and what was expected.
    The command line tools print it without a traceback and exit with status
    1; ``--traceback`` shows where it was raised.

    Args:
        message (str): The sentence. Of what a worker of a dataloader raised,
            to which torch adds the worker's traceback, the sentence is left.
    """

    def __init__(self, message: str = '') -> None:
        before, name, sentence = str(message).rpartition(
            f'{UserError.__module__}.UserError: '
        )
        is_of_worker = name and before.startswith('Caught ')
        super().__init__(sentence.strip() if is_of_worker else message)


def check_keys(
    name: str, settings: Iterable[str], known: Iterable[str]
) -> None:
    """Refuse a key that would be ignored, such as a misspelt one.

    Args:
        name (str): Where the settings stand in the config.
        settings (Iterable[str]): Their keys. mmengine's ``_scope_`` may be
            among them.
        known (Iterable[str]): The keys that have an effect.

    Raises:
        UserError: If there is another.
    """
    known = list(known)
    unknown = sorted(set(settings) - {*known, '_scope_'})
    if unknown:
        raise UserError(
            f'{name} has the unknown key {unknown[0]!r}; it takes '
            f'{", ".join(known)}'
        )
