"""How the ``model`` entry of a golden becomes a config, a file a system.

A system is a module with

- ``recognises(meta) -> bool``: whether a golden's json is of this system;
- ``build_config(meta) -> dict``: the config of its detector, chosen and set
  by all that the ``model`` entry says: a key that it does not look up fails
  the test, see ``Entry``, but for
- ``IMPLIED``: values of keys that hold in every config of the system;
- ``evaluated_images(meta) -> list[int]``: the images of the batch that
  ``out.*`` was computed on;
- ``output_sizes(meta) -> list``: (h, w) of the images that detections are
  scaled to, empty if it has no detections;
- ``run(golden, model, images) -> (results, head_inputs)``: runs the detector
  on some images of the batch; gives all results that goldens of this source
  keep, under their names, and the keyword arguments of the head's loss;
  ``NAME.where`` tells where a result may be compared, if not everywhere;
- ``loss_kinds(meta) -> dict[str, int]``: for each prefix of losses
  (``''``, ``'ho_'``) the iteration of the training;
- ``loss_name(name) -> str``: the source's name of a loss in our words;
- ``matches(meta, arrays, kind) -> Iterator[Match]``: its assignments;
- ``NAMES_ARE_OURS``, if it is there: whether its weights have this project's
  names, so that they load without a converter.

What is the same in most of them stands in ``defaults.py``.
"""

from types import ModuleType

from . import anchor_detr, deta, dn_detr, h_detr, hpr, rank_detr
from .entry import Entry
from .match import Match

__all__ = ['Entry', 'Match', 'system_of']

SYSTEMS = (h_detr, rank_detr, anchor_detr, deta, dn_detr, hpr)


def system_of(meta: dict) -> ModuleType:
    """Find the system of a golden by what its json says of its source."""
    for system in SYSTEMS:
        if system.recognises(meta):
            return system
    raise LookupError(
        f'no module of tests/helpers/golden_systems knows {meta["source"]}'
    )
