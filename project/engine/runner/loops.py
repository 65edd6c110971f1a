# Copyright (c) mmdetr authors. All rights reserved.
"""Training loops that resume with the batch that would have come next."""

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, Dataset, Sampler

_PROGRESS = 'train_data'
"""Key in the message hub, which every checkpoint holds, of the sampler's seed
and of the iteration at which the current pass over the data began."""


class _ResumableData:
    """Restores the position in the data; shared by both loops.

    A dataloader built from a config gets a batch sampler that can skip its
    first batches. The sampler's seed, which mmengine draws anew in each run
    unless the config fixes it, is kept in the message hub.
    """

    runner: Runner
    dataloader: Any
    _iter: int

    def _build(self, runner: Runner, dataloader: Any) -> Any:
        """Build a dataloader that can skip its first batches."""
        if not isinstance(dataloader, dict):
            return dataloader
        return runner.build_dataloader(
            _with_late_batches(dataloader),
            seed=runner.seed,
            diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False),
        )

    @property
    def _late_sampler(self) -> 'LateBatchSampler | None':
        """The batch sampler, if it can skip batches."""
        sampler = getattr(self.dataloader, 'batch_sampler', None)
        return sampler if isinstance(sampler, LateBatchSampler) else None

    def _restore(self) -> dict:
        """Shuffle as before the interruption.

        Returns:
            dict: What :meth:`_note` saved before it; empty in a new training.
        """
        noted, seed, sampler = {}, None, self._sampler()
        if self._iter > 0:
            noted = self.runner.message_hub.runtime_info.get(_PROGRESS, {})
            # A checkpoint of another loop has no seed for the sampler, which
            # then is the runner's, as in mmengine.
            seed = noted.get('seed', self.runner._randomness_cfg.get('seed'))
        if seed is None or sampler is None:
            return noted
        if hasattr(sampler, 'seed'):
            sampler.seed = seed
        return noted

    def _note(self, **position: int) -> None:
        """Save position, seed and batch size in the message hub."""
        noted = dict(position)
        seed, batch = getattr(self._sampler(), 'seed', None), self._batch()
        if seed is not None:
            noted['seed'] = int(seed)
        if batch is not None:
            noted['batch'] = batch
        self.runner.message_hub.update_info(_PROGRESS, noted)

    def _in_batches_of_now(self, num_batches: int, noted: dict) -> int:
        """Convert a number of batches if the batch size has changed."""
        then, now = noted.get('batch'), self._batch()
        if then is None or now is None or then == now or not num_batches:
            return num_batches
        self.runner.logger.warning(
            f'The training had batches of {then} images, counted over all '
            f'processes, and resumes with batches of {now}: of the '
            f'{num_batches * then} images since the data was last begun it '
            'leaves out as many as fill whole batches.'
        )
        return num_batches * then // now

    def _sampler(self) -> Sampler | None:
        """The sampler that shuffles the images."""
        loader = self.dataloader
        batch_sampler = getattr(loader, 'batch_sampler', None)
        if batch_sampler is None:
            return getattr(loader, 'sampler', None)
        return getattr(batch_sampler, 'sampler', None)

    def _batch(self) -> int | None:
        """Batch size over all processes, if it is fixed."""
        batch_sampler = getattr(self.dataloader, 'batch_sampler', None)
        size = getattr(batch_sampler, 'batch_size', None)
        return size * get_world_size() if isinstance(size, int) else None


@LOOPS.register_module()
class ResumableTrainLoop(_ResumableData, IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that resumes without loading earlier batches.

    To resume at iteration N, mmengine's loop loads and augments N batches,
    in another order than before unless the config fixes the seed. This loop
    advances the index sampler by N batches, which takes seconds, with the
    seed of the interrupted training: the batches that follow are those of a
    training that never stopped.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): A built dataloader, or one whose
            sampler is no ``InfiniteSampler``, resumes as in mmengine.
        *args, **kwargs: Arguments of ``IterBasedTrainLoop``.
    """

    def __init__(
        self, runner: Runner, dataloader: Any, *args: Any, **kwargs: Any
    ) -> None:
        loader = self._build(runner, dataloader)
        # The parent would start the workers at once, on the first images.
        unstarted = _Unstarted(loader.dataset)
        super().__init__(runner, unstarted, *args, **kwargs)
        self.dataloader = loader

    def run(self) -> Any:
        """Train, from where a resumed training has come to."""
        noted = self._restore()
        late, num_skipped, num_moved = self._late_sampler, self._iter, 0
        if late is not None and isinstance(late.sampler, InfiniteSampler):
            num_skipped = self._in_batches_of_now(
                self._iter - noted.get('start', 0), noted
            )
            late.num_skipped, num_moved = num_skipped, self._iter
        # Where the first image would be, had all batches the current size.
        self._note(start=self._iter - num_skipped)
        self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader)
        # The forks' loop may be told not to go through past batches.
        goes_through = not getattr(self, 'fast_forward_on_resume', False)
        if num_moved and goes_through:
            self.dataloader_iterator = _AlreadyMoved(
                self.dataloader_iterator, num_moved
            )
        return super().run()


@LOOPS.register_module()
class ResumableEpochTrainLoop(_ResumableData, EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that also resumes within an epoch.

    From a checkpoint within an epoch, mmengine's loop trains the whole epoch
    again while it goes on counting iterations. This loop skips the batches
    that were trained on, and shuffles each epoch as if the training had never
    stopped. ``DETRRunner`` uses it for ``EpochBasedTrainLoop``.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The batches to skip are loaded if it
            is a built dataloader.
        *args, **kwargs: Arguments of ``EpochBasedTrainLoop``.
    """

    def __init__(
        self, runner: Runner, dataloader: Any, *args: Any, **kwargs: Any
    ) -> None:
        loader = self._build(runner, dataloader)
        super().__init__(runner, loader, *args, **kwargs)
        self._num_done = 0

    def run(self) -> Any:
        """Train, from where a resumed training has come to."""
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
        """How many batches of its epoch a checkpoint has seen."""
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
        """Yield the remaining batches with their index in the epoch."""
        late = self._late_sampler
        if late is None:
            yield from islice(enumerate(self.dataloader), num_done, None)
            return
        late.num_skipped = num_done
        yield from enumerate(self.dataloader, start=num_done)
        late.num_skipped = 0


def resumable(loop: dict) -> dict:
    """Replace mmengine's training loops by those of this module.

    Args:
        loop (dict): ``train_cfg`` of a config.

    Returns:
        dict: A copy; its type is replaced if it was one of mmengine's.
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
    """Wrap the batch sampler of a config in a :class:`LateBatchSampler`."""
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
    """A batch sampler that can skip its first batches.

    ``num_skipped`` may be set between passes. Creating an iterator has no
    side effects: with workers, torch creates two for one pass over the data.

    Args:
        sampler (Sampler): Gives the indices.
        batch_size (int): Images per batch.
        num_skipped (int): How many batches each pass skips. Defaults to 0.
        batch_sampler (dict, optional): Config of the batch sampler to wrap.
            Defaults to torch's ``BatchSampler``.
        drop_last (bool): Whether to drop a last incomplete batch.
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
        # The parent would refuse arguments that other batch samplers take.
        self.sampler = sampler
        self.num_skipped = num_skipped
        if batch_sampler is None:
            self.batches = BatchSampler(sampler, batch_size, drop_last)
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
        """Number of batches of a whole pass."""
        return len(self.batches)


class _Unstarted:
    """Stands in for a dataloader until its workers may start."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator:
        return iter(())


class _AlreadyMoved:
    """Iterator over batches of which the sampler has skipped the first ones.

    Args:
        iterator (Iterator): Yields the batches that follow.
        num_skipped (int): How many times :func:`next` returns None first:
            mmengine's loop calls it for each batch before the resumed one.
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
