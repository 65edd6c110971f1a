"""How the ``model`` entry of a golden becomes a config, a file a system.

A system is a module with

- ``recognises(meta) -> bool``: whether a golden's json is of this system;
- ``build_config(meta) -> dict``: the config of its detector;
- ``loss_name(name) -> str``: the source's name of a loss in our words;
- ``evaluated_images(meta) -> list[int]``: the images of the batch that
  ``out.*`` was computed on.
"""

from types import ModuleType

from . import h_detr

SYSTEMS = (h_detr,)


def system_of(meta: dict) -> ModuleType:
    """Find the system of a golden by what its json says of its source."""
    for system in SYSTEMS:
        if system.recognises(meta):
            return system
    raise LookupError(
        f'no module of tests/helpers/golden_systems knows {meta["source"]}'
    )
