# Copyright (c) mmdetr authors. All rights reserved.
import os
import os.path as osp
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.optim import Adam, AdamW
from torch.utils.data import DataLoader

from project.checkpoints.last_checkpoint import (
    TEMPLATES,
    find_last_checkpoint,
    own_checkpoints,
)
from project.checkpoints.writing import (
    KeepingBackend,
    full_disk_told,
    is_local,
    keep_until_replaced,
    remove_unfinished,
    write_text,
    written_beside,
)
from project.engine.runner.distributed import decide_together
from project.engine.runner.signals import StopOnSignal, shield_workers
from project.engine.runner.work_dir import (
    WorkDirLock,
    check_replaceable,
    check_room,
    check_unused,
    check_writable,
    forget_foreign_best,
)


class DurableRunner(Runner):
    """mmengine's Runner, whose trainings may be killed at any time.

    - A checkpoint is there whole or not at all, and outdated ones are removed
      when the new one is there, whatever hook saves them.
    - One training at a time writes into a work dir, and none writes over the
      checkpoints of another unless ``overwrite = True`` in the config.
    - SIGTERM and SIGUSR1 end a training after a checkpoint.

    Args:
        model (nn.Module | dict): As in mmengine.
        work_dir (str): As in mmengine.
        *args, **kwargs: As in mmengine.

    Raises:
        UserError: If ``work_dir`` cannot be written to.
    """

    saved_iter: int | None = None
    """Iterations after which this process has last saved all of its state."""

    def __init__(self, model: Any, work_dir: str, *args, **kwargs) -> None:
        check_writable(osp.abspath(work_dir), 'work dir')
        super().__init__(model, work_dir, *args, **kwargs)

    def register_hooks(
        self,
        default_hooks: dict | None = None,
        custom_hooks: list | None = None,
    ) -> None:
        """Register the hooks of the config, and one that hears signals.

        Args:
            default_hooks (dict, optional): As in mmengine.
            custom_hooks (list, optional): As in mmengine.
        """
        super().register_hooks(default_hooks, custom_hooks)
        self._stop_on_signal = StopOnSignal()
        self.register_hook(self._stop_on_signal)

    @contextmanager
    def training_in_work_dir(self) -> Iterator[None]:
        """Train, and let no other training into the work dir meanwhile.

        Raises:
            UserError: If the work dir is in use, holds another training's
                checkpoints or has no room, before anything is written; or if
                there is no more room.
        """
        lock = WorkDirLock(self.work_dir)
        try:
            warning = decide_together(lambda: self._claim(lock))
            if warning:
                self.logger.warning(warning)
            with full_disk_told(self.work_dir):
                yield
        except Exception as error:
            if not self._stop_on_signal.told_to_end(self, error):
                raise
            raise SystemExit(128 + self._stop_on_signal.received) from error
        finally:
            self._stop_on_signal.close()
            lock.release()

    def _claim(self, lock: WorkDirLock) -> str | None:
        """Check the work dir, which is no other training's from now on."""
        folder, templates = self._checkpoint_place()
        lock.acquire()
        if not self._may_write_over(folder):
            check_unused(self.work_dir, folder, templates)
        check_replaceable(self.work_dir)
        check_writable(folder, 'folder of checkpoints')
        for path in {self.work_dir, folder}:
            remove_unfinished(path)
        num_there = len(own_checkpoints(folder, templates))
        return check_room(
            folder, self._checkpoint_size(), self._num_kept(), num_there
        )

    def _may_write_over(self, folder: str) -> bool:
        """Tell whether the checkpoints that are there are given up for it."""
        if self.cfg.get('overwrite', False):
            return True
        if not self._resume or self._load_from is None:
            return self._resume
        source = osp.realpath(osp.dirname(self._load_from))
        return source in map(osp.realpath, (folder, self.work_dir))

    def _checkpoint_hooks(self) -> list[CheckpointHook]:
        """What saves checkpoints."""
        return [
            hook for hook in self._hooks if isinstance(hook, CheckpointHook)
        ]

    def _checkpoint_place(self) -> tuple[str, tuple[str, ...]]:
        """Tell where on this machine checkpoints go, and how they are named.

        Before mmengine's hook has begun to train, and knows it itself.
        """
        hooks = self._checkpoint_hooks()
        templates = {*TEMPLATES, *(hook.filename_tmpl for hook in hooks)}
        folder = self.work_dir
        for hook in hooks[:1]:
            out = hook.out_dir
            if out in (None, self.work_dir) or not is_local(
                out, hook.backend_args, hook.file_client_args
            ):
                continue
            folder = osp.join(out, osp.basename(self.work_dir.rstrip(os.sep)))
        return folder, tuple(sorted(templates))

    def _checkpoint_size(self) -> int:
        """About the bytes of a checkpoint, in which Adam keeps two moments."""
        wrapper = self.optim_wrapper
        if isinstance(wrapper, OptimWrapper):
            is_adam = isinstance(wrapper.optimizer, Adam | AdamW)
        else:
            kind = str(((wrapper or {}).get('optimizer') or {}).get('type'))
            is_adam = 'Adam' in kind
        size = sum(
            value.numel() * value.element_size()
            for value in self.model.state_dict().values()
        )
        if not is_adam or not any(
            h.save_optimizer for h in self._checkpoint_hooks()
        ):
            return size
        return size + 2 * sum(
            value.numel() * value.element_size()
            for value in self.model.parameters()
            if value.requires_grad
        )

    def _num_kept(self) -> int:
        """How many checkpoints there will be when the training is done."""
        loop = self._train_loop if isinstance(self._train_loop, dict) else {}
        total = 0
        for hook in self._checkpoint_hooks():
            length = loop.get('max_epochs' if hook.by_epoch else 'max_iters')
            planned = -(-(length or 1) // max(1, hook.interval))
            limit = hook.max_keep_ckpts
            total += min(planned, limit) if limit > 0 else planned
        return total

    @master_only
    def dump_config(self) -> None:
        """Write the config to the work dir, unless another one is there.

        That may be of the training that wrote there before; it is replaced
        when this one may train there. Each run's own config lies in its
        ``<time>/vis_data`` as well.
        """
        if not osp.exists(self._config_copy()):
            super().dump_config()

    @master_only
    def _write_config(self) -> None:
        """Have the work dir hold the config of the training in it."""
        path = self._config_copy()
        source = self.cfg.filename
        # A config that was made from text has no source any more.
        exist = source and osp.exists(source) and osp.exists(path)
        if exist and osp.samefile(source, path):
            return  # a user's own
        with tempfile.TemporaryDirectory() as folder:
            new = Path(folder, osp.basename(path))
            self.cfg.dump(new)
            text = new.read_text(encoding='utf-8')
        if not osp.exists(path) or Path(path).read_bytes() != text.encode():
            write_text(path, text)

    def _config_copy(self) -> str:
        """Where mmengine writes the config."""
        name = osp.basename(self.cfg.filename or f'{self.timestamp}.py')
        return osp.join(self.work_dir, name)

    def find_resumed(self) -> None:
        """Decide, for all processes, which checkpoint to resume from."""
        if self._resume and self._load_from is None:
            place = self._checkpoint_place()
            self._load_from = decide_together(
                lambda: find_last_checkpoint(self.work_dir, *place)
            )

    def resume(self, filename: str, *args, **kwargs) -> None:
        """Take up a training where a checkpoint left it.

        Args:
            filename (str): As in mmengine.
            *args, **kwargs: As in mmengine.
        """
        super().resume(filename, *args, **kwargs)
        forget_foreign_best(self.message_hub, self._checkpoint_place()[0])

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """Call all hooks, and then remove what they have replaced.

        Args:
            fn_name (str): As in mmengine.
            **kwargs: As in mmengine.
        """
        if fn_name == 'before_train':
            self._write_config()
        super().call_hook(fn_name, **kwargs)
        for hook in self._checkpoint_hooks():
            if fn_name == 'before_train':
                keep_until_replaced(hook)
            elif fn_name.startswith('after_'):
                backend = getattr(hook, 'file_backend', None)
                if isinstance(backend, KeepingBackend):
                    backend.remove_outdated()

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save a checkpoint, whole or not at all.

        Args:
            out_dir (str): As in mmengine.
            filename (str): As in mmengine.
            file_client_args (dict, optional): As in mmengine.
            save_optimizer (bool): As in mmengine.
            save_param_scheduler (bool): As in mmengine.
            meta (dict, optional): As in mmengine.
            by_epoch (bool): As in mmengine.
            backend_args (dict, optional): As in mmengine.

        Raises:
            UserError: If it cannot be written, such as to a full disk.
        """
        save = super().save_checkpoint
        settings = dict(
            file_client_args=file_client_args,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=backend_args,
        )
        if not is_local(out_dir, backend_args, file_client_args):
            save(out_dir, filename, **settings)
        elif is_main_process():
            path = osp.join(out_dir, filename)
            for hook in self._checkpoint_hooks():
                backend = getattr(hook, 'file_backend', None)
                if isinstance(backend, KeepingBackend):
                    backend.keep(path)
            with written_beside(path) as unfinished:
                save(out_dir, osp.basename(unfinished), **settings)
        if save_optimizer:
            now = self.iter if by_epoch else self.iter + 1
            self.saved_iter = (meta or {}).get('iter', now)

    @staticmethod
    def build_dataloader(*args, **kwargs) -> DataLoader:
        """Build a dataloader whose workers end with the training alone.

        Args:
            *args, **kwargs: As in mmengine.

        Returns:
            DataLoader: The dataloader.
        """
        return shield_workers(Runner.build_dataloader(*args, **kwargs))
