# Copyright (c) mmdetr authors. All rights reserved.
"""Strong DETRs for MMDetection 3.x.

Importing this package registers its detectors, heads, losses, assigners and
runner, which are imported at the first look-up in a registry. It also resolves
the variables of configs when they are read (see
``preflight/resolved_reading.py``). A config imports it by::

    custom_imports = dict(imports=['project'], allow_failed_imports=False)
"""

import importlib
from typing import Any

from .utils.environment import can_register
from .version import __version__

_SUBPACKAGES = (
    'apis',
    'datasets',
    'engine',
    'evaluation',
    'models',
    'preflight',
)

__all__ = ['__version__', *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    """Import a subpackage when it is first used."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if can_register():
    import mmdet.registry
    import mmengine.registry

    from .checkpoints.mmengine_loaders import use_safe_loaders
    from .checkpoints.safe_types import allow_mmengine_checkpoints
    from .preflight.resolved_reading import resolve_when_read
    from .utils.registration import add_location

    add_location(
        (mmdet.registry.MODELS, mmdet.registry.TASK_UTILS), 'project.models'
    )
    # What an `init_cfg` names is looked up before the model is.
    packages = (mmdet, mmengine)
    add_location(
        [package.registry.WEIGHT_INITIALIZERS for package in packages],
        'project.models',
    )
    for name in (
        'DATA_SAMPLERS',
        'HOOKS',
        'LOG_PROCESSORS',
        'LOOPS',
        'OPTIM_WRAPPER_CONSTRUCTORS',
        'RUNNERS',
    ):
        registries = (getattr(package.registry, name) for package in packages)
        add_location(registries, 'project.engine')
    for module in ('coco', 'dataset_wrappers'):
        add_location((mmdet.registry.DATASETS,), f'project.datasets.{module}')
    add_location((mmdet.registry.TRANSFORMS,), 'project.datasets.transforms')
    add_location((mmdet.registry.METRICS,), 'project.evaluation')
    allow_mmengine_checkpoints()
    resolve_when_read()
    use_safe_loaders()
