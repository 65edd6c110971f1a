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
    markers_written_beside,
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
    """mmengine's Runner with trainings that may be killed at any time.

    - Checkpoints and ``last_checkpoint`` are written atomically, and outdated
      ones are removed only when the new one is complete, whatever hook saves
      them.
    - One training at a time writes into a work dir, and none overwrites the
      checkpoints of another unless the config says ``overwrite = True``.
    - SIGTERM and SIGUSR1 end a training after it has saved a checkpoint.

    Args:
        model (nn.Module | dict): See mmengine's ``Runner``.
        work_dir (str): See mmengine's ``Runner``.
        *args, **kwargs: Further arguments of mmengine's ``Runner``.

    Raises:
        UserError: If ``work_dir`` cannot be written to.
    """

    saved_iter: int | None = None
    """Iterations done when this process last saved its whole state."""

    _load_from: str | None
    _resume: bool

    def __init__(
        self, model: Any, work_dir: str, *args: Any, **kwargs: Any
    ) -> None:
        check_writable(osp.abspath(work_dir), 'work dir')
        super().__init__(model, work_dir, *args, **kwargs)

    def register_hooks(
        self,
        default_hooks: dict | None = None,
        custom_hooks: list | None = None,
    ) -> None:
        """Register the hooks of the config and :class:`StopOnSignal`."""
        super().register_hooks(default_hooks, custom_hooks)
        self._stop_on_signal = StopOnSignal()
        self.register_hook(self._stop_on_signal)

    @contextmanager
    def training_in_work_dir(self) -> Iterator[None]:
        """Keep other trainings out of the work dir while this one runs.

        Raises:
            UserError: Before anything is written, if the work dir is in use,
                holds another training's checkpoints or has too little disk
                space; during the training, if the disk is full.
        """
        lock = WorkDirLock(self.work_dir)
        try:
            warning = decide_together(lambda: self._claim(lock))
            if warning:
                self.logger.warning(warning)
            with full_disk_told(self.work_dir), markers_written_beside():
                yield
        except Exception as error:
            number = self._stop_on_signal.signal_behind(self, error)
            if number is None:
                raise
            raise SystemExit(128 + number) from error
        finally:
            self._stop_on_signal.close()
            lock.release()

    def _claim(self, lock: WorkDirLock) -> str | None:
        """Lock the work dir and check it; return a warning, if any."""
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
        """Return whether existing checkpoints may be overwritten."""
        if self.cfg.get('overwrite', False):
            return True
        if not self._resume or self._load_from is None:
            return self._resume
        source = osp.realpath(osp.dirname(self._load_from))
        return source in map(osp.realpath, (folder, self.work_dir))

    def _checkpoint_hooks(self) -> list[CheckpointHook]:
        """The hooks that save checkpoints."""
        return [
            hook for hook in self._hooks if isinstance(hook, CheckpointHook)
        ]

    def _checkpoint_place(self) -> tuple[str, tuple[str, ...]]:
        """Folder and file names of the checkpoints saved on this machine.

        mmengine's hook itself knows them only in ``before_train``.
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
        """Approximate bytes of a checkpoint, Adam's moments included."""
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
        """How many checkpoints the training keeps at its end."""
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
        """Write the config to the work dir, unless there is one.

        It may be that of an earlier training, and is replaced only when this
        training starts. ``<time>/vis_data`` holds the config of each run.
        """
        if not osp.exists(self._config_copy()):
            super().dump_config()

    @master_only
    def _write_config(self) -> None:
        """Write this training's config to the work dir."""
        path = self._config_copy()
        source = self.cfg.filename
        # A config made from text has no source file.
        exist = source and osp.exists(source) and osp.exists(path)
        if exist and osp.samefile(source, path):
            return  # the user trains with the config in the work dir
        with tempfile.TemporaryDirectory() as folder:
            new = Path(folder, osp.basename(path))
            self.cfg.dump(new)
            text = new.read_text(encoding='utf-8')
        if not osp.exists(path) or Path(path).read_bytes() != text.encode():
            write_text(path, text)

    def _config_copy(self) -> str:
        """Path to which mmengine writes the config."""
        name = osp.basename(self.cfg.filename or f'{self.timestamp}.py')
        return osp.join(self.work_dir, name)

    def find_resumed(self) -> str | None:
        """Decide for all processes which checkpoint to resume from.

        Without one, the training starts from ``start_from``, where
        ``tools/train.py --resume`` puts the config's ``load_from``.

        Returns:
            str | None: The checkpoint that is loaded before the training.
        """
        if self._resume and self._load_from is None:
            place = self._checkpoint_place()
            self._load_from = decide_together(
                lambda: find_last_checkpoint(self.work_dir, *place)
            )
            start = self.cfg.get('start_from')
            if self._load_from is None and start:
                self.logger.info(
                    f'Nothing to resume: {self.work_dir} has no checkpoint.'
                )
                self._resume, self._load_from = False, start
        return self._load_from

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resume from a checkpoint; see mmengine's ``Runner.resume``."""
        super().resume(filename, *args, **kwargs)
        forget_foreign_best(self.message_hub, self._checkpoint_place()[0])

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks, then remove the checkpoints they have replaced."""
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
        """Save a checkpoint atomically; see ``Runner.save_checkpoint``.

        Raises:
            UserError: If it cannot be written, such as to a full disk.
        """
        if save_optimizer:
            self.call_hook('before_save')  # in all processes
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

    def build_dataloader(
        self,
        dataloader: DataLoader | dict,
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a dataloader whose workers ignore signals to the job."""
        return shield_workers(
            super().build_dataloader(dataloader, seed, diff_rank_seed)
        )
