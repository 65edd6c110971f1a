"""The ``model`` entry of a golden, none of which may be passed over."""

from collections.abc import Callable
from typing import Any


class Anything:
    """Holds every value."""

    def __contains__(self, value: object) -> bool:
        return True


ANYTHING = Anything()


class Entry(dict):
    """A dict that knows which of its keys were looked up.

    Args:
        values: The entry. Dicts in it become entries, too.
        note: Called with each key that is looked up.
    """

    def __init__(
        self, values: dict, note: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(
            {
                key: Entry(value) if type(value) is dict else value
                for key, value in values.items()
            }
        )
        self.seen: set[str] = set()
        self._note = note or self.seen.add

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        if key in self:
            return self[key]
        return default

    def everything(self) -> dict:
        """All of it, as a plain dict."""
        return {key: self[key] for key in self}

    def renamed(self, words: dict[str, str]) -> 'Entry':
        """The same entry in other words.

        Args:
            words: Another word for some keys.
        """
        sources = {words.get(key, key): key for key in self}
        return Entry(
            {
                word: super(Entry, self).get(key)
                for word, key in sources.items()
            },
            note=lambda word: self._note(sources.get(word, word)),
        )

    def unseen(self) -> set[str]:
        """Keys that nobody looked up, with dots for those of dicts in it."""
        names = set()
        for key, value in self.items():
            if key not in self.seen:
                names.add(key)
            elif isinstance(value, Entry):
                names.update(f'{key}.{name}' for name in value.unseen())
        return names
