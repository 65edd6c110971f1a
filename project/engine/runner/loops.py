# Copyright (c) mmdetr authors. All rights reserved.
"""Training loops that resume with the batches that would have come next."""

import copy
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, Dataset, Sampler

_PROGRESS = 'train_data'
"""Where the message hub, which every checkpoint holds, tells how the data is
shuffled and where its current pass began."""


class _ResumableData:
    """What both loops need to go on with the next batches.

    A dataloader given by its config gets a batch sampler that can begin late.
    The seed of its sampler, which mmengine draws anew in each run unless the
    config fixes it, is kept in the message hub.
    """

    def _build(self, runner: Runner, dataloader: Any) -> Any:
        """Build a dataloader whose batches can begin late."""
        if not isinstance(dataloader, dict):
            return dataloader
        return runner.build_dataloader(
            _with_late_batches(dataloader),
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
        )

    @property
    def _late_sampler(self) -> 'LateBatchSampler | None':
        """The batch sampler, if it is one that can begin late."""
        sampler = getattr(self.dataloader, 'batch_sampler', None)
        return sampler if isinstance(sampler, LateBatchSampler) else None

    def _restore(self) -> dict:
        """Shuffle as before the interruption.

        Returns:
            dict: What :meth:`_note` noted before it; nothing in a training
            that begins.
        """
        noted, seed, sampler = {}, None, self._sampler()
        if self._iter > 0:
            noted = self.runner.message_hub.runtime_info.get(_PROGRESS, {})
            # A checkpoint of another loop's tells nothing. By now the runner
            # has its seed, which mmengine gives the sampler, too.
            seed = noted.get('seed', self.runner._randomness_cfg.get('seed'))
        if seed is not None and hasattr(sampler, 'seed'):
            sampler.seed = seed
        return noted

    def _note(self, **position: int) -> None:
        """Have checkpoints tell how the data is shuffled."""
        noted = dict(position)
        seed, batch = getattr(self._sampler(), 'seed', None), self._batch()
        if seed is not None:
            noted['seed'] = int(seed)
        if batch is not None:
            noted['batch'] = batch
        self.runner.message_hub.update_info(_PROGRESS, noted)

    def _in_batches_of_now(self, num_batches: int, noted: dict) -> int:
        """Convert a number of batches if these had another size."""
        then, now = noted.get('batch'), self._batch()
        if None in (then, now) or then == now or not num_batches:
            return num_batches
        self.runner.logger.warning(
            f'The training had batches of {then} images, counted over all '
            f'processes, and resumes with batches of {now}: of the '
            f'{num_batches * then} images since the data was last begun it '
            'leaves out as many as fill whole batches.'
        )
        return num_batches * then // now

    def _sampler(self) -> Sampler | None:
        """What shuffles the images."""
        loader = self.dataloader
        batch_sampler = getattr(loader, 'batch_sampler', None)
        if batch_sampler is None:
            return getattr(loader, 'sampler', None)
        return getattr(batch_sampler, 'sampler', None)

    def _batch(self) -> int | None:
        """Images of a step of all processes, if there is such a number."""
        batch_sampler = getattr(self.dataloader, 'batch_sampler', None)
        size = getattr(batch_sampler, 'batch_size', None)
        return size * get_world_size() if isinstance(size, int) else None


@LOOPS.register_module()
class ResumableTrainLoop(_ResumableData, IterBasedTrainLoop):
    """mmengine's loop over iterations, which resumes without loading data.

    To go on at iteration N, mmengine's loop loads and augments the N batches
    that were trained on before, in another order than theirs unless the
    config fixes the seed. Here an ``InfiniteSampler`` of the resumed
    training's seed is moved on by N batches, which takes seconds, and what
    follows are the batches of a training that never stopped.

    Args:
        runner (Runner): As in mmengine.
        dataloader (DataLoader | dict): As in mmengine. One that is no config,
            or has another sampler, is gone through as there.
        *args, **kwargs: As in mmengine's ``IterBasedTrainLoop``.
    """

    def __init__(
        self, runner: Runner, dataloader: Any, *args, **kwargs
    ) -> None:
        loader = self._build(runner, dataloader)
        # The parent starts the workers at once, on the first images.
        unstarted = _Unstarted(loader.dataset)
        super().__init__(runner, unstarted, *args, **kwargs)
        self.dataloader = loader

    def run(self) -> Any:
        """Train, from where a resumed training has come to.

        Returns:
            nn.Module: The trained model.
        """
        noted = self._restore()
        late, num_skipped = self._late_sampler, self._iter
        moves = late is not None and isinstance(late.sampler, InfiniteSampler)
        if moves:
            num_skipped = self._in_batches_of_now(
                self._iter - noted.get('start', 0), noted
            )
            late.num_skipped = num_skipped
        # Where the first image would be, had all batches the size of now.
        self._note(start=self._iter - num_skipped)
        self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader)
        # The forks' loop may be told not to go through past batches.
        goes_through = not getattr(self, 'fast_forward_on_resume', False)
        if moves and goes_through:
            self.dataloader_iterator = _AlreadyMoved(
                self.dataloader_iterator, self._iter
            )
        return super().run()


@LOOPS.register_module()
class ResumableEpochTrainLoop(_ResumableData, EpochBasedTrainLoop):
    """mmengine's loop over epochs, which also resumes within an epoch.

    From a checkpoint of the middle of an epoch, mmengine's loop trains that
    epoch again from its first image on, though it goes on counting
    iterations. Here the batches that were trained on are left out, and all
    epochs are shuffled as if the training had never stopped.

    ``DETRRunner`` takes it wherever a config says ``EpochBasedTrainLoop``.

    Args:
        runner (Runner): As in mmengine.
        dataloader (DataLoader | dict): As in mmengine. Of one that is no
            config the batches to leave out are loaded.
        *args, **kwargs: As in mmengine's ``EpochBasedTrainLoop``.
    """

    def __init__(
        self, runner: Runner, dataloader: Any, *args, **kwargs
    ) -> None:
        loader = self._build(runner, dataloader)
        super().__init__(runner, loader, *args, **kwargs)
        self._num_done = 0

    def run(self) -> Any:
        """Train, from where a resumed training has come to.

        Returns:
            nn.Module: The trained model.
        """
        noted = self._restore()
        self._num_done = self._in_batches_of_now(
            self._done_of_epoch(noted), noted
        )
        if self._num_done:
            self.runner.logger.info(
                f'Epoch {self._epoch + 1} goes on after its first '
                f'{self._num_done} of {len(self.dataloader)} batches.'
            )
        return super().run()

    def run_epoch(self) -> None:
        """Iterate one epoch, or what is left of it."""
        num_done, self._num_done = self._num_done, 0
        self._note(epoch=self._epoch, begin=self._iter - num_done)
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, batch in self._batches(num_done):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _done_of_epoch(self, noted: dict) -> int:
        """How many batches of its epoch a checkpoint was trained on."""
        if 'begin' in noted:
            # At the end of an epoch a checkpoint names the next one.
            is_within = noted['epoch'] == self._epoch
            return self._iter - noted['begin'] if is_within else 0
        # A checkpoint of mmengine's loop. Its epochs may have had another
        # length, with other batches or images.
        info = self.runner.message_hub.runtime_info
        now = len(self.dataloader)
        then = info.get('max_iters', 0) // (info.get('max_epochs') or 1) or now
        done = self._iter - self._epoch * then
        return done * now // then if 0 < done <= then else 0

    def _batches(self, num_done: int) -> Iterator[tuple[int, Any]]:
        """Yield the batches that are left, and their number in the epoch."""
        late = self._late_sampler
        if late is None:
            yield from islice(enumerate(self.dataloader), num_done, None)
            return
        late.num_skipped = num_done
        yield from enumerate(self.dataloader, start=num_done)
        late.num_skipped = 0


def resumable(loop: dict) -> dict:
    """Take the loops of this module for those of mmengine.

    Args:
        loop (dict): ``train_cfg`` of a config.

    Returns:
        dict: The same with another type, if it was one of mmengine's own.
    """
    loop = loop.copy()
    kind = loop.get('type')
    if kind is None and 'by_epoch' in loop:
        is_epochs = loop.pop('by_epoch')
        kind = EpochBasedTrainLoop if is_epochs else IterBasedTrainLoop
    elif isinstance(kind, str):
        kind = LOOPS.get(kind)
    if kind is EpochBasedTrainLoop:
        loop['type'] = ResumableEpochTrainLoop
    elif kind is IterBasedTrainLoop:
        loop['type'] = ResumableTrainLoop
    return loop


def _with_late_batches(dataloader: dict) -> dict:
    """Put a :class:`LateBatchSampler` around the batches of a config."""
    inner = dataloader.get('batch_sampler')
    if inner is not None and not isinstance(inner, dict):
        return dataloader
    config = copy.copy(dataloader)
    late = dict(type='LateBatchSampler', batch_sampler=inner)
    if inner is None:
        late['drop_last'] = config.pop('drop_last', False)
    config['batch_sampler'] = late
    return config


@DATA_SAMPLERS.register_module()
class LateBatchSampler(BatchSampler):
    """A batch sampler that can begin late.

    Making an iterator changes nothing: torch makes two for one pass through
    the data where there are workers.

    Args:
        sampler (Sampler): Gives the indices.
        batch_size (int): Images of a batch.
        num_skipped (int): How many batches each pass leaves out at first.
            Defaults to 0.
        batch_sampler (dict, optional): Config of the batch sampler. By
            default indices are taken as they come.
        drop_last (bool): Whether a last incomplete batch is left out.
            Defaults to False.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        num_skipped: int = 0,
        batch_sampler: dict | None = None,
        drop_last: bool = False,
    ) -> None:
        # Not the parent's, which refuses what other batch samplers take.
        self.sampler = sampler
        self.num_skipped = num_skipped
        if batch_sampler is None:
            self.batches: Iterable = BatchSampler(
                sampler, batch_size, drop_last
            )
        else:
            self.batches = DATA_SAMPLERS.build(
                batch_sampler,
                default_args=dict(sampler=sampler, batch_size=batch_size),
            )
        self.batch_size = getattr(self.batches, 'batch_size', batch_size)
        self.drop_last = getattr(self.batches, 'drop_last', drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        yield from islice(self.batches, self.num_skipped, None)

    def __len__(self) -> int:
        """Batches of a whole pass."""
        return len(self.batches)


class _Unstarted:
    """Stands in for a dataloader until its workers may start.

    Args:
        dataset (Dataset): Of the dataloader.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator:
        return iter(())


class _AlreadyMoved:
    """An iterator whose first batches were left out by its sampler.

    Args:
        iterator (Iterator): Gives the batches after them.
        num_skipped (int): How many times :func:`next` gives nothing.
    """

    def __init__(self, iterator: Iterator, num_skipped: int) -> None:
        self._iterator = iterator
        self._num_skipped = num_skipped

    def __next__(self) -> Any:
        if self._num_skipped:
            self._num_skipped -= 1
            return None
        return next(self._iterator)

    def skip_iter(self, num_skipped: int) -> None:
        """Give nothing so many times at once, as the forks' loop asks."""
        self._num_skipped -= num_skipped
