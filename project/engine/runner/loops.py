# Copyright (c) mmdetr authors. All rights reserved.
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, LOOPS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import BatchSampler, Sampler


@LOOPS.register_module()
class ResumableTrainLoop(IterBasedTrainLoop):
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
        self._dataloader_cfg = dataloader
        super().__init__(runner, dataloader, *args, **kwargs)

    def run(self) -> Any:
        """Train, from where a resumed training has come to.

        Returns:
            nn.Module: The trained model.
        """
        sampler = getattr(self.dataloader.batch_sampler, 'sampler', None)
        can_move = isinstance(self._dataloader_cfg, dict) and isinstance(
            sampler, InfiniteSampler
        )
        if self._iter > 0 and can_move:
            self._move_on(self._iter)
        return super().run()

    def _move_on(self, num_batches: int) -> None:
        """Have the next batches be those after ``num_batches``."""
        config = dict(self._dataloader_cfg)
        config['batch_sampler'] = dict(
            type='LateBatchSampler',
            num_skipped=num_batches,
            batch_sampler=config.get('batch_sampler'),
            drop_last=config.pop('drop_last', False),
        )
        randomness = self.runner._randomness_cfg
        self.dataloader = self.runner.build_dataloader(
            config,
            seed=self.runner.seed,
            diff_rank_seed=randomness.get('diff_rank_seed', False),
        )
        # The parent's iterator, over the new loader.
        iterator = type(self.dataloader_iterator)(self.dataloader)
        self.dataloader_iterator = _AlreadyMoved(iterator, num_batches)


@DATA_SAMPLERS.register_module()
class LateBatchSampler:
    """A batch sampler that begins late.

    Args:
        sampler (Sampler): Gives the indices.
        batch_size (int): Images of a batch.
        num_skipped (int): How many batches are left out at first.
        batch_sampler (dict, optional): Config of the batch sampler. By
            default indices are taken as they come.
        drop_last (bool): Whether a last incomplete batch is left out.
            Defaults to False.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        num_skipped: int,
        batch_sampler: dict | None = None,
        drop_last: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
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

    def __iter__(self) -> Iterator[list[int]]:
        first, self.num_skipped = self.num_skipped, 0
        return islice(iter(self.batches), first, None)

    def __len__(self) -> int:
        return len(self.batches)


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
