# Copyright (c) mmdetr authors. All rights reserved.
"""Chooses the settings of a fine-tuning and writes its config."""

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from project.apis.finetuning.folder import DataFolder, Split
from project.engine.optim_wrappers import amp_dtype
from project.preflight.model import count_queries
from project.utils.errors import UserError
from project.utils.paths import config_path
from project.utils.words import counted

MONITOR = 'coco/bbox_mAP'
"""The metric of the best checkpoint and of early stopping."""

TRACKERS = {
    'tensorboard': "dict(type='TensorboardVisBackend')",
    'wandb': "dict(type='WandbVisBackend', "
    "init_kwargs=dict(project='mmdetr', name={name}))",
    # MLflow no longer writes into folders, which mmengine would name.
    'mlflow': "dict(type='MLflowVisBackend', exp_name='mmdetr', "
    "run_name={name}, tracking_uri='sqlite:///mlflow.db')",
}
"""mmengine's backend of each library, by the library's name."""
_DTYPES = {'fp16': 'float16', 'bf16': 'bfloat16'}
# The average covers few steps in the beginning: after ``gamma`` of them it
# forgets a third, and in the end 0.0002, at every step.
_EMA = """\
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0002,
        gamma={gamma},
    ),
"""
_PASSES = 50_000  # images seen in training
_EPOCHS = (12, 100)
_FROM_BACKBONE = 3  # times as long without a detector's weights
_MAX_WARM_UP = 1000
_MIN_PATIENCE = 10
_MIN_DELTA = 0.001


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a fine-tuning.

    Attributes:
        gpus: Number of processes.
        batch_size: Images per process and forward pass; None keeps the
            config's.
        epochs: Number of epochs; None chooses it by the number of images.
        image_size: Short side of an image in testing; None keeps the config's.
        workers: Processes that load images; None keeps the config's.
        amp: Mixed precision, ``fp16`` or ``bf16``.
        ema: Whether to average the weights.
        tracker: Key of ``TRACKERS``.
    """

    gpus: int = 1
    batch_size: int | None = None
    epochs: int | None = None
    image_size: int | None = None
    workers: int | None = None
    amp: str | None = None
    ema: bool = False
    tracker: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Settings of a fine-tuning.

    Attributes:
        config: The config to inherit from.
        root: Folder of the dataset.
        data: The dataset.
        options: The user's options.
        start: Checkpoint to start from, with the dataset's classes.
        published: (learning rate, images per step) of ``config``.
        batch_size: Images per process and forward pass.
        accumulated: Forward passes per step.
        epochs: Number of epochs.
        has_hooks: Whether ``config`` has custom hooks.
        is_for_own_data: Whether ``config`` inherits ``datasets/custom.py``.
        max_per_img: Detections per image where the queries give fewer for
            these classes than ``config`` asks for.
    """

    config: Path
    root: Path
    data: DataFolder
    options: Options
    start: Path | None
    published: tuple[float, int]
    batch_size: int
    accumulated: int
    epochs: int
    has_hooks: bool
    is_for_own_data: bool
    max_per_img: int | None = None

    @property
    def batches(self) -> int:
        """Batches per epoch and process."""
        return math.ceil(
            self.data.num_images / (self.batch_size * self.options.gpus)
        )

    @property
    def step(self) -> int:
        """Images per optimizer step."""
        return self.batch_size * self.options.gpus * self.accumulated

    @property
    def lr(self) -> float:
        """The published learning rate, scaled by the images per step."""
        lr, images = self.published
        return float(f'{lr * self.step / images:.3g}')

    @property
    def warm_up(self) -> int:
        """Number of warm-up batches."""
        tenth = self.batches * self.epochs // 10
        return min(_MAX_WARM_UP, max(2, tenth))  # of one, none would warm up

    @property
    def milestone(self) -> int:
        """Epoch after which the learning rate drops, as 11 of 12."""
        return max(1, min(self.epochs - 1, round(self.epochs * 11 / 12)))

    @property
    def patience(self) -> int:
        """Validations without a better mAP before the training stops."""
        return max(_MIN_PATIENCE, self.epochs // 4)


def check_device(amp: str | None) -> None:
    """Raise a UserError if this machine cannot train in a precision."""
    if amp is not None:
        amp_dtype(_DTYPES[amp])


def choose(
    config: Path,
    cfg: Config,
    root: Path,
    data: DataFolder,
    options: Options,
    start: Path | None = None,
) -> Recipe:
    """Choose the settings.

    Args:
        config: The config to inherit from.
        cfg: The same config, loaded.
        root: Folder of the dataset.
        data: The dataset.
        options: The user's options.
        start: Checkpoint to start from, with the dataset's classes.

    Raises:
        UserError: If the config has no learning rate or batch size, or the
            library of the tracker is not installed.
    """
    if options.tracker and not find_spec(options.tracker):
        raise UserError(
            f'The tracker {options.tracker} is not installed; pip install '
            f'{options.tracker} changes that.'
        )
    lr = cfg.get('optim_wrapper', {}).get('optimizer', {}).get('lr')
    loader = cfg.get('train_dataloader') or {}
    batch_size = options.batch_size or loader.get('batch_size')
    if lr is None or batch_size is None:
        raise UserError(
            f'{config} sets no optim_wrapper.optimizer.lr or no '
            'train_dataloader.batch_size, from which a fine-tuning could '
            'start.'
        )
    images = (cfg.get('auto_scale_lr') or {}).get('base_batch_size', 16)
    per_pass = batch_size * options.gpus
    batches = math.ceil(data.num_images / per_pass)
    return Recipe(
        config,
        root.resolve(),
        data,
        options,
        start,
        (lr, images),
        batch_size,
        min(max(1, round(images / per_pass)), batches),
        options.epochs or _num_epochs(data.num_images, start is None),
        bool(cfg.get('custom_hooks')),
        'custom' in cfg,
        _fewer_detections(cfg, len(data.classes)),
    )


def _fewer_detections(cfg: Config, num_classes: int) -> int | None:
    """Detections per image that the queries can give, if it asks for more."""
    model = cfg.get('model') or {}
    asked = (model.get('test_cfg') or {}).get('max_per_img')
    num_queries = count_queries(model)
    if asked is None or num_queries is None:
        return None
    limit = num_queries * num_classes
    return limit if asked > limit else None


def _num_epochs(num_images: int, is_from_backbone: bool) -> int:
    """Enough epochs for 50,000 images, from 12 to 100."""
    low, high = _EPOCHS
    epochs = min(max(low, round(_PASSES / num_images)), high)
    return epochs * (_FROM_BACKBONE if is_from_backbone else 1)


def reasons(recipe: Recipe) -> list[str]:
    """Explain each change in one line."""
    r, data, options = recipe, recipe.data, recipe.options
    lr, images = r.published
    split = ', a fifth taken for validation' if data.is_split else ''
    lines = [
        f'{counted(len(data.classes), "class", "classes")}, '
        f'{counted(data.num_images, "training image")} '
        f'({data.kind}{split}).',
        f'lr {r.lr:g} ({lr:g} for {images} images a step, here '
        f'{r.batch_size} x {counted(options.gpus, "GPU")} x '
        f'{r.accumulated} accumulated = {r.step}).',
        f'{counted(r.epochs, "epoch")} '
        + ('(chosen)' if options.epochs else _why_epochs(r))
        + f', a tenth of the lr after {r.milestone}, warm-up over the first '
        f'{r.warm_up} batches since the classifiers are new.',
        f'Best checkpoint by {MONITOR}; stops after {r.patience} epochs '
        f'without +{_MIN_DELTA:g} (mmengine asks for +0.1).',
        f'Starts from {r.start.name}.'
        if r.start
        else 'Starts from the backbone of the config: a trained detector '
        '(--checkpoint) needs a third of the epochs.',
    ]
    if options.image_size:
        lines.append(
            f'Images of {options.image_size} pixels on the short side; the '
            'sizes in training follow.'
        )
    if r.max_per_img:
        lines.append(
            f'{r.max_per_img} detections per image, as many as the queries '
            'give.'
        )
    if extras := _extras(options):
        lines.append(f'{", ".join(extras)}.')
    return lines


def _extras(options: Options) -> list[str]:
    """Name what was asked for besides."""
    workers = options.workers
    return [
        words
        for words, is_asked in (
            (f'Mixed precision in {options.amp}', options.amp),
            ('EMA of the weights', options.ema),
            (f'{options.tracker} besides the logs', options.tracker),
            (f'{workers} workers load images', workers is not None),
        )
        if is_asked
    ]


def _why_epochs(recipe: Recipe) -> str:
    """Explain the number of epochs."""
    rule = f'for {_PASSES:,} images, {_EPOCHS[0]} to {_EPOCHS[1]}'
    if recipe.start:
        return f'({rule})'
    return f'({rule}; {_FROM_BACKBONE} times as many from a backbone alone)'


def config_text(recipe: Recipe) -> str:
    """Write the config."""
    r, options = recipe, recipe.options
    comments = ''.join(f'# - {line}\n' for line in reasons(r))
    size = f'image_size = {options.image_size}\n' * bool(options.image_size)
    start = f'load_from = {str(r.start)!r}\n' * bool(r.start)
    fewer = f'model = dict(test_cfg=dict(max_per_img={r.max_per_img}))\n'
    fewer *= bool(r.max_per_img)
    paths = [r.config]
    if not r.is_for_own_data:
        paths.append(config_path('_base_/datasets/custom.py'))
    bases = ''.join(f'    {str(path)!r},\n' for path in paths)
    return f"""\
# Written by tools/finetune.py; yours to change. Other than in the first base:
{comments}_base_ = [
{bases}]

data_root = {f'{r.root}/'!r}
classes = {r.data.classes!r}
max_epochs = {r.epochs}
{size}{start}{fewer}
{_data_text(r)}
{_schedule_text(r)}{_hooks_text(r)}"""


def _data_text(r: Recipe) -> str:
    train, val = r.data.splits['train'], r.data.splits['val']
    test = r.data.splits.get('test', val)
    workers = r.options.workers
    loading = f'num_workers={workers}, ' * (workers is not None)
    return f"""\
train_dataloader = _base_.custom.train_dataloader
train_dataloader.update({loading}batch_size={r.batch_size})
train_dataloader.dataset.update({_dataset(train, r.root)})
val_dataloader = dict({loading}dataset=dict({_dataset(val, r.root)}))
test_dataloader = dict({loading}dataset=dict({_dataset(test, r.root)}))
val_evaluator = dict(ann_file={str(val.annotations)!r}, classwise=True)
test_evaluator = dict(ann_file={str(test.annotations)!r}, classwise=True)
"""


def _schedule_text(r: Recipe) -> str:
    amp = r.options.amp
    mixed = ''
    if amp:
        mixed = f"    type='AmpOptimWrapper',\n    dtype={_DTYPES[amp]!r},\n"
    return f"""\
train_cfg = dict(
    _delete_=True,
    type='EpochBasedTrainLoop',
    max_epochs=max_epochs,
    val_interval=1,
)
optim_wrapper = dict(
{mixed}    optimizer=dict(lr={r.lr!r}),
    accumulative_counts={r.accumulated},
)
auto_scale_lr = dict(base_batch_size={r.step})
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.001,
        by_epoch=False,
        begin=0,
        end={r.warm_up},
    ),
    dict(
        type='MultiStepLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        milestones=[{r.milestone}],
        gamma=0.1,
    ),
]
"""


def _hooks_text(r: Recipe) -> str:
    own_hooks = '    *_base_.custom_hooks,\n' * r.has_hooks
    logged = max(1, min(50, r.batches // 2))
    ema = _EMA.format(gamma=r.warm_up) * r.options.ema
    return f"""\
{_tracker_text(r)}log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(interval={logged}),
    checkpoint=dict(
        by_epoch=True,
        interval=1,
        max_keep_ckpts=1,
        save_best={MONITOR!r},
        rule='greater',
    ),
)
custom_hooks = [
{own_hooks}    dict(
        type='EarlyStoppingHook',
        monitor={MONITOR!r},
        rule='greater',
        min_delta={_MIN_DELTA},
        patience={r.patience},
    ),
{ema}]
"""


def _tracker_text(r: Recipe) -> str:
    """Write where losses and metrics go besides the logs."""
    if r.options.tracker is None:
        return ''
    name = f'{r.config.stem}_{r.root.name}'
    backend = TRACKERS[r.options.tracker].format(name=repr(name))
    return f"""\
visualizer = dict(
    vis_backends=[
        dict(type='LocalVisBackend'),
        {backend},
    ]
)
"""


def _dataset(split: Split, root: Path) -> str:
    """Arguments of a dataset, relative to its root where that is possible."""
    file, images = (
        str(path.relative_to(root) if path.is_relative_to(root) else path)
        for path in (split.annotations, split.images)
    )
    return f'ann_file={file!r}, data_prefix=dict(img={images!r})'
