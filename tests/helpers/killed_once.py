"""A stage of Ray Data of which a worker dies; workers import it."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from project.apis.ray_data import RayDetector


class KilledOnce(RayDetector):
    """A worker that dies in the middle, as on a machine that goes away."""

    def __init__(self, marker: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marker = Path(marker)
        self.batches = 0

    def __call__(self, batch: dict[str, np.ndarray]) -> Any:
        self.batches += 1
        if self.batches == 3:
            try:
                self.marker.touch(exist_ok=False)
            except FileExistsError:
                return super().__call__(batch)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)
