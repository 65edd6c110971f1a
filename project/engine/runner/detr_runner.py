# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Sized
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import (
    BaseTTAModel,
    is_model_wrapper,
    revert_sync_batchnorm,
)
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from project.checkpoints.pretrained import (
    check_pretrained,
    correct_file_names,
    leave_out_replaced,
)
from project.checkpoints.start_checks import (
    check_checkpoint,
    check_resumable,
    check_start_in_part,
)
from project.datasets.broken_images import name_broken_images
from project.engine import summary
from project.engine.fast_model import speed_up
from project.engine.hooks import (
    AccumulatedGradients,
    CheckpointForm,
    FiniteHook,
    OneTransfer,
    ShardedTraining,
    StepSeedHook,
    TerminalHook,
)
from project.engine.hooks.finite_hook import log_norm, refuse_to_save
from project.engine.optim_wrappers import without_mmengines
from project.engine.runner.building import ToldBuilding
from project.engine.runner.distributed import (
    check_local_device,
    has_accelerator,
    init_cpu_group,
    is_first_of_machine,
    others_waited_for,
    raise_together,
    set_rank_variables,
)
from project.engine.runner.durable_runner import DurableRunner
from project.engine.runner.formatted_config import OnceFormattedConfig
from project.engine.runner.ground_truth import complete_annotations
from project.engine.runner.loops import resumable
from project.engine.terminal import (
    QuietEvaluator,
    prints_to_log,
    quiet_terminal,
)
from project.ops import name_in_config
from project.preflight import check_data
from project.preflight.batch import other_batch
from project.preflight.build_errors import told_by_config
from project.preflight.config import check_config
from project.preflight.fast_runtime import (
    apply_checkpointing,
    apply_fast_runtime,
    check_sharding,
    read_fast_runtime,
)
from project.preflight.settings import stop_idle_workers
from project.preflight.variables import (
    drop_missing_backends,
    resolve_config,
)
from project.utils.errors import UserError
from project.utils.finite import check_finite

_HOOKS = (
    AccumulatedGradients,
    CheckpointForm,
    FiniteHook,
    OneTransfer,
    StepSeedHook,
    TerminalHook,
)
"""Added to every training, unless its config has one of the same type."""


# NOTE mmdet's tools/train.py looks runners up in mmengine's registry, which
# does not search its children; mmdet's registry finds it there as well.
@RUNNERS.register_module()
class DETRRunner(ToldBuilding, DurableRunner):
    """mmengine's Runner for configs with ``data_root`` and ``classes``.

    Beyond the safety of :class:`DurableRunner`, it differs from mmengine's
    Runner in three ways, none of which changes a training that works with it:

    - The variables ``data_root`` and ``classes`` apply to the whole config
      (see :func:`resolve_config`), also in the copy in ``work_dir``.
    - Mistakes end in a :class:`UserError` of one sentence before data or
      weights are loaded: missing data, annotations that do not fit, a
      checkpoint of another model, pretrained weights of the backbone that are
      neither there nor in the checkpoint. With ``load_partially = True`` a
      training may start from a checkpoint that fits in part.
    - Distributed training works without GPUs, through gloo.

    Select it with ``runner_type = 'DETRRunner'`` in the config.
    """

    _sharding: ShardedTraining | None = None

    @classmethod
    def from_cfg(cls, cfg: Config | dict) -> 'DETRRunner':
        """Build a runner from a config.

        Returns:
            DETRRunner: The runner with a built model; data is not loaded yet.

        Raises:
            UserError: If parts of the config contradict each other.
        """
        cfg = resolve_config(cfg)
        changes = [
            *check_config(cfg),
            *correct_file_names(cfg),
            *drop_missing_backends(cfg),
        ]
        stop_idle_workers(cfg)
        apply_fast_runtime(cfg)
        apply_checkpointing(cfg)
        check_sharding(cfg)
        with told_by_config(cfg):
            runner = super().from_cfg(OnceFormattedConfig.of(cfg))
        for change in changes:
            runner.logger.warning(change)
        return runner

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; details go to its file only."""
        logger = super().build_logger(*args, **kwargs)
        quiet_terminal(logger)
        return logger

    def register_hooks(self, *args: Any, **kwargs: Any) -> None:
        """Register the hooks of the config and those of every training."""
        super().register_hooks(*args, **kwargs)
        for hook_type in _HOOKS:
            if not any(isinstance(hook, hook_type) for hook in self.hooks):
                self.register_hook(hook_type())
        if self._is_sharded:
            self._sharding = ShardedTraining()
            self.register_hook(self._sharding)

    @property
    def _is_sharded(self) -> bool:
        return self.distributed and bool(self.cfg.get('fully_shard', False))

    def setup_env(self, env_cfg: dict) -> None:
        """Start the process group and prepare the environment.

        Args:
            env_cfg (dict): ``env_cfg`` of the config.

        Raises:
            UserError: If the launcher did not start this process, there are
                fewer GPUs than processes, or ``attention_backend`` is none.
        """
        name_in_config(env_cfg.get('attention_backend'))
        if self.distributed and not is_distributed():
            set_rank_variables(self.launcher)
            check_local_device()
            with others_waited_for(self.launcher):
                if not has_accelerator():
                    init_cpu_group(env_cfg.get('dist_cfg', {}))
                super().setup_env(env_cfg)
        else:
            super().setup_env(env_cfg)

    def wrap_model(
        self, model_wrapper_cfg: dict | None, model: nn.Module
    ) -> nn.Module:
        """Wrap the model for distributed training.

        Returns:
            nn.Module: The model on its device, wrapped if distributed.
        """
        if self.distributed and not has_accelerator():
            # DDP refuses SyncBN on the CPU, even if it is frozen.
            model = revert_sync_batchnorm(model)
            find_unused = self.cfg.get('find_unused_parameters', False)
            model_wrapper_cfg = ConfigDict(
                model_wrapper_cfg
                or dict(
                    type='MMDistributedDataParallel',
                    broadcast_buffers=False,
                    find_unused_parameters=find_unused,
                ),
                # The parent would pass the number of a GPU.
                device_ids=None,
            )
        speed_up(model, read_fast_runtime(self.cfg))
        if self._is_sharded:
            return model.to(get_device())  # split when it has its weights
        return super().wrap_model(model_wrapper_cfg, model)

    def build_dataloader(
        self,
        dataloader: DataLoader | dict,
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a dataloader that names the images that it cannot read.

        In training it skips up to ``max_broken_images`` (of the config) of
        them. See ``Runner.build_dataloader`` for the arguments.

        Raises:
            UserError: If there are images, but too few for a batch.
        """
        with prints_to_log():  # of pycocotools
            built = super().build_dataloader(dataloader, seed, diff_rank_seed)
        max_broken = self.cfg.get('max_broken_images') or 0
        name_broken_images(built.dataset, max_broken)
        _check_batches(built)
        return built

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        """Build the metrics; annotations need not have ``iscrowd``.

        What pycocotools prints goes to the log file.
        """
        with prints_to_log():
            built = super().build_evaluator(evaluator)
        complete_annotations(built)
        if type(built) is Evaluator:
            built = QuietEvaluator(built.metrics)
        return built

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop; see :func:`resumable`."""
        loop = resumable(loop) if isinstance(loop, dict) else loop
        return super().build_train_loop(loop)

    def build_optim_wrapper(
        self, optim_wrapper: OptimWrapper | dict
    ) -> OptimWrapper | OptimWrapperDict:
        """Build the optimizer wrapper; see :func:`without_mmengines`."""
        if isinstance(optim_wrapper, dict):
            optim_wrapper = without_mmengines(optim_wrapper)
        return super().build_optim_wrapper(optim_wrapper)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint unless the model has diverged.

        Raises:
            UserError: If a weight is not finite.
        """
        refuse_to_save(self._bare_model().state_dict())
        log_norm(self)
        if self._sharding is not None:
            self._sharding.put_together(self)
        super().save_checkpoint(*args, **kwargs)

    def load_or_resume(self) -> None:
        """Load or resume; with ``fully_shard``, split a training."""
        super().load_or_resume()
        is_training = isinstance(self.optim_wrapper, OptimWrapper)
        if not is_training:
            return
        if self._sharding is not None:
            self._sharding.split(self)
        elif self.cfg.get('fully_shard', False):
            self.logger.warning(
                'fully_shard=True has no effect: this training has one '
                'process; start it with ./dist_train.sh CONFIG GPUS WORK_DIR.'
            )

    def train(self) -> nn.Module:
        """Check, then train.

        Raises:
            UserError: If data, checkpoint or device cannot work.
        """
        if isinstance(self.optim_wrapper, dict):
            without_mmengines(self.optim_wrapper)  # before it looks at data
        with self.training_in_work_dir():
            self.find_resumed()
            self._check_data('train', 'val')
            raise_together(self._check_start)
            self._tell_other_batch()
            return super().train()

    def val(self) -> dict:
        """Check, then validate.

        Raises:
            UserError: If data or checkpoint cannot work.
        """
        self._check_data('val')
        raise_together(self._check_weights)
        return super().val()

    def test(self) -> dict:
        """Check, then test.

        Raises:
            UserError: If data or checkpoint cannot work.
        """
        self._check_data('test')
        raise_together(self._check_weights)
        return super().test()

    def _log_env(self, env_cfg: dict) -> None:
        """Log the environment, and a summary on the terminal."""
        super()._log_env(env_cfg)
        for line in summary.environment(self):
            self.logger.info(line)

    def _tell_other_batch(self) -> None:
        """Warn if the schedule is meant for another batch size."""
        for sentence in other_batch(self.cfg, self.world_size):
            self.logger.warning(sentence)

    def _check_data(self, *splits: str) -> None:
        """Check the data, once per machine because it takes a while."""

        def check() -> None:
            if is_first_of_machine():
                check_data(self.cfg, splits)

        raise_together(check)

    def _check_start(self) -> None:
        """Check the weights that the training starts or resumes from."""
        if self._load_from is not None:
            self._check_loaded(self._load_from)
            return
        check_pretrained(self.cfg, self._bare_model())
        if self._resume:
            self.logger.warning(
                f'Nothing to resume: {self.work_dir} has no checkpoint. '
                'The training starts from the beginning.'
            )

    def _check_loaded(self, path: str) -> None:
        """Check a checkpoint that the training starts or resumes from.

        Pretrained weights that it replaces need not exist.
        """
        model = self._bare_model()
        if self._resume:
            check_resumable(path)
        if self.cfg.get('load_partially', False) and not self._resume:
            weights, sentence = check_start_in_part(path, model)
            self.logger.info(sentence)
        else:
            weights = check_checkpoint(
                path,
                model,
                fine_tuning=not self._resume,
                config=self.cfg.filename,
            )
        check_finite(weights, path, 'nothing can start from it')
        left_out = leave_out_replaced(self.cfg, model, weights)
        for sentence in left_out.values():
            self.logger.info(sentence)
        check_pretrained(self.cfg, model, left_out)

    def _check_weights(self) -> None:
        """Raise unless the checkpoint to evaluate fits the model."""
        if self._load_from is not None and not self._has_loaded:
            path = self._load_from
            weights = check_checkpoint(path, self._bare_model())
            check_finite(
                weights,
                path,
                'the training that wrote it has diverged, and there is '
                'nothing to evaluate',
            )

    def _bare_model(self) -> nn.Module:
        """The model without its wrappers."""
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        return model


def _check_batches(dataloader: DataLoader) -> None:
    """Raise if no batch is complete: each epoch would be empty."""
    dataset = dataloader.dataset
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized):
        return
    if len(dataset) and not len(dataloader):
        batch_size = getattr(dataloader.batch_sampler, 'batch_size', None)
        raise UserError(
            f'The {len(dataset)} images of '
            f'{type(dataset).__name__} are less than a batch of '
            f'batch_size={batch_size} in each process, and drop_last=True '
            'leaves out incomplete batches: set '
            'train_dataloader.drop_last=False, or a smaller batch_size.'
        )
