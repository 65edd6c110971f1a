# Copyright (c) mmdetr authors. All rights reserved.
from mmengine.config import Config

_TEXTS: dict[str, str] = {}
"""The last config that was formatted."""


class OnceFormattedConfig(Config):
    """A config whose text is formatted again only if it has changed.

    mmengine's runner needs the text several times at the start and in each
    checkpoint. Formatting a detector's takes more than a second.
    """

    @classmethod
    def of(cls, cfg: Config) -> 'OnceFormattedConfig':
        """Make one that shares its content with ``cfg``."""
        shared = cls.__new__(cls)
        shared.__dict__.update(cfg.__dict__)
        return shared

    @property
    def pretty_text(self) -> str:
        """The config as Python code."""
        content = repr(self.to_dict())
        if content not in _TEXTS:
            _TEXTS.clear()
            _TEXTS[content] = super().pretty_text
        return _TEXTS[content]
