# Copyright (c) mmdetr authors. All rights reserved.
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_distributed
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import (
    BaseTTAModel,
    is_model_wrapper,
    revert_sync_batchnorm,
)
from mmengine.optim import AmpOptimWrapper
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
from project.engine.hooks import (
    CheckpointForm,
    FiniteHook,
    StepSeedHook,
    TerminalHook,
)
from project.engine.hooks.finite_hook import refuse_to_save
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
from project.engine.runner.ground_truth import complete_annotations
from project.engine.runner.loops import resumable
from project.engine.terminal import (
    QuietEvaluator,
    prints_to_log,
    quiet_terminal,
)
from project.preflight import check_data
from project.preflight.batch import other_batch
from project.preflight.build_errors import told_by_config
from project.preflight.config import check_config
from project.preflight.settings import stop_idle_workers
from project.preflight.variables import (
    drop_missing_backends,
    resolve_config,
)
from project.utils.errors import UserError
from project.utils.finite import check_finite

_HOOKS = (CheckpointForm, FiniteHook, StepSeedHook, TerminalHook)
"""What every training needs, unless its config has one of the kind."""


# NOTE mmdet's tools/train.py asks mmengine's registry, which does not look
# into those of the packages; mmdet's own registry finds it here as well.
@RUNNERS.register_module()
class DETRRunner(ToldBuilding, DurableRunner):
    """mmengine's Runner for configs with ``data_root`` and ``classes``.

    Loses nothing that is there or was trained (:class:`DurableRunner`).
    Differs from mmengine's in three more ways, and in none where a training
    goes well on GPUs with a complete config:

    - The variables ``data_root`` and ``classes`` hold everywhere (see
      :func:`resolve_config`), also in the config it writes to ``work_dir``.
    - What cannot work ends in a :class:`UserError` of one sentence before
      data or weights are loaded: missing data, annotations that do not fit,
      a checkpoint of another model, a backbone whose pretrained weights are
      missing and that no checkpoint brings. ``load_partially = True`` in the
      config lets training start from a checkpoint that fits in part.
    - Several processes work without a GPU: they talk through gloo.

    Select it by ``runner_type = 'DETRRunner'`` in the config.
    """

    @classmethod
    def from_cfg(cls, cfg: Config | dict) -> 'DETRRunner':
        """Build a runner from a config.

        Args:
            cfg (Config | dict): A complete config.

        Returns:
            DETRRunner: The runner, its model built, its data not loaded.

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
        with told_by_config(cfg):
            runner = super().from_cfg(cfg)
        for change in changes:
            runner.logger.warning(change)
        return runner

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger, whose details go to its file alone.

        Args:
            *args, **kwargs: As in mmengine's ``Runner``.

        Returns:
            MMLogger: The logger.
        """
        logger = super().build_logger(*args, **kwargs)
        quiet_terminal(logger)
        return logger

    def register_hooks(self, *args, **kwargs) -> None:
        """Register the hooks of the config, and those of every training.

        Args:
            *args, **kwargs: As in mmengine's ``Runner``.
        """
        super().register_hooks(*args, **kwargs)
        for hook_type in _HOOKS:
            if not any(isinstance(hook, hook_type) for hook in self.hooks):
                self.register_hook(hook_type())

    def setup_env(self, env_cfg: dict) -> None:
        """Start the process group and prepare the environment.

        Args:
            env_cfg (dict): ``env_cfg`` of the config.

        Raises:
            UserError: If the launcher did not start this process or there
                are fewer GPUs than processes.
        """
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

        Args:
            model_wrapper_cfg (dict | None): ``model_wrapper_cfg`` of the
                config.
            model (nn.Module): The model.

        Returns:
            nn.Module: The model on its device, wrapped if distributed.
        """
        if self.distributed and not has_accelerator():
            # DDP takes them on GPUs only, frozen ones as well.
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
        return super().wrap_model(model_wrapper_cfg, model)

    def build_dataloader(
        self,
        dataloader: DataLoader | dict,
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a dataloader that names the images that it cannot read.

        Args:
            dataloader (DataLoader | dict): As in mmengine.
            seed (int | None): As in mmengine. Defaults to None.
            diff_rank_seed (bool): As in mmengine. Defaults to False.

        Returns:
            DataLoader: The dataloader. In training it skips as many images
            as ``max_broken_images`` of the config says.

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
        """Build the metrics, for annotations without ``iscrowd`` as well.

        What pycocotools prints goes to the log file.

        Args:
            evaluator (dict | list | Evaluator): As in mmengine.

        Returns:
            Evaluator: The evaluator.
        """
        with prints_to_log():
            built = super().build_evaluator(evaluator)
        complete_annotations(built)
        if type(built) is Evaluator:
            built = QuietEvaluator(built.metrics)
        return built

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop; mmengine's as one that resumes exactly.

        Args:
            loop (BaseLoop | dict): ``train_cfg`` of the config.

        Returns:
            BaseLoop: The loop.
        """
        loop = resumable(loop) if isinstance(loop, dict) else loop
        return super().build_train_loop(loop)

    def save_checkpoint(self, *args, **kwargs) -> None:
        """Save a checkpoint, as mmengine does, unless the model diverged.

        Raises:
            UserError: If a weight is not finite, on each process by itself.
        """
        refuse_to_save(self._bare_model().state_dict())
        super().save_checkpoint(*args, **kwargs)

    def train(self) -> nn.Module:
        """Check, then train.

        Returns:
            nn.Module: The trained model.

        Raises:
            UserError: If data, checkpoint or device cannot work.
        """
        self._check_precision()
        with self.training_in_work_dir():
            self.find_resumed()
            self._check_data('train', 'val')
            raise_together(self._check_start)
            self._tell_other_batch()
            return super().train()

    def val(self) -> dict:
        """Check, then validate.

        Returns:
            dict: The metrics.

        Raises:
            UserError: If data or checkpoint cannot work.
        """
        self._check_data('val')
        raise_together(self._check_weights)
        return super().val()

    def test(self) -> dict:
        """Check, then test.

        Returns:
            dict: The metrics.

        Raises:
            UserError: If data or checkpoint cannot work.
        """
        self._check_data('test')
        raise_together(self._check_weights)
        return super().test()

    def _log_env(self, env_cfg: dict) -> None:
        """Log the environment, its essence on the terminal, too."""
        super()._log_env(env_cfg)
        for line in summary.environment(self):
            self.logger.info(line)

    def _tell_other_batch(self) -> None:
        """Warn if schedule or learning rate were made for another batch."""
        for sentence in other_batch(self.cfg, self.world_size):
            self.logger.warning(sentence)

    def _check_precision(self) -> None:
        """Raise if mixed precision was asked for on a CPU."""
        wrapper = self.cfg.get('optim_wrapper') or {}
        uses_amp = wrapper.get('type') in ('AmpOptimWrapper', AmpOptimWrapper)
        if uses_amp and not has_accelerator():
            raise UserError(
                'Mixed precision (--amp, AmpOptimWrapper) needs a GPU and '
                'there is none; train without it.'
            )

    def _check_data(self, *splits: str) -> None:
        """Check the data once on each machine; reading it takes a while."""

        def check() -> None:
            if is_first_of_machine():
                check_data(self.cfg, splits)

        raise_together(check)

    def _check_start(self) -> None:
        """Raise unless the training can start or go on from its weights."""
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
        """Raise unless the training can start or go on from a checkpoint.

        Pretrained weights that it replaces need not be there.
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
        """Raise unless the weights to evaluate are those of the model."""
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
        """Take the wrappers of the model off."""
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        return model


def _check_batches(dataloader: DataLoader) -> None:
    """Raise if no batch has enough images: each epoch would be empty."""
    if isinstance(dataloader.dataset, IterableDataset):
        return
    if len(dataloader.dataset) and not len(dataloader):
        batch_size = getattr(dataloader.batch_sampler, 'batch_size', None)
        raise UserError(
            f'The {len(dataloader.dataset)} images of '
            f'{type(dataloader.dataset).__name__} are less than a batch of '
            f'batch_size={batch_size} in each process, and drop_last=True '
            'leaves out incomplete batches: set '
            'train_dataloader.drop_last=False, or a smaller batch_size.'
        )
