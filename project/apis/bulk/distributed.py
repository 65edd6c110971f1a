# Copyright (c) mmdetr authors. All rights reserved.
"""The processes of a detection, which communicate only at the start.

After that each works on its portions, and the first one sees from the files
which are done.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.distributed as dist

from project.utils.errors import UserError, raise_everywhere


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: Rank of this process, from 0.
        number: Number of processes.
    """

    rank: int = 0
    number: int = 1

    @classmethod
    def join(cls, has_others: bool) -> 'Processes':
        """Join the other processes of torchrun, if there are any."""
        if not has_others:
            return cls()
        dist.init_process_group('gloo')
        return cls(dist.get_rank(), dist.get_world_size())

    def first(self, begin: Callable[[], None]) -> None:
        """Run a function in the first process while the others wait.

        They do not communicate any more after that.

        Args:
            begin: The function.

        Raises:
            UserError: In all processes, if the function raises one.
        """
        told: list[str | None] = [None]
        if self.rank == 0:
            try:
                begin()
            except UserError as error:
                if self.number == 1:
                    raise
                told = [str(error)]
        if self.number > 1:
            dist.broadcast_object_list(told)
            dist.destroy_process_group()
            raise_everywhere(told)
