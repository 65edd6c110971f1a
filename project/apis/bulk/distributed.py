# Copyright (c) mmdetr authors. All rights reserved.
"""The processes of a detection, which talk to each other once: at the start.

After that each does its portions, and files tell the first one who is done.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.distributed as dist

from project.utils.errors import UserError, raise_everywhere


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: Its number, from 0.
        number: How many there are.
    """

    rank: int = 0
    number: int = 1

    @classmethod
    def join(cls, has_others: bool) -> 'Processes':
        """Meet the others that torchrun has started, if there are any."""
        if not has_others:
            return cls()
        dist.init_process_group('gloo')
        return cls(dist.get_rank(), dist.get_world_size())

    def first(self, begin: Callable[[], None]) -> None:
        """Have the first process do something while the others wait.

        They talk no more after that.

        Args:
            begin: What it does.

        Raises:
            UserError: In all of them, if it raises one.
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
