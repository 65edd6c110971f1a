# Copyright (c) mmdetr authors. All rights reserved.
import re
import resource

from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor, Runner
from torch.accelerator import is_available as has_accelerator

# Losses of earlier decoder layers, other query groups and stages.
_FURTHER_LOSS = re.compile(r'(.*/)?(?!loss)[^/]*loss')


@LOG_PROCESSORS.register_module()
class BriefLogProcessor(LogProcessor):
    """mmengine's log processor with shorter lines.

    A line shows the total loss and the loss terms of the last decoder layer;
    the scalars written to disk hold those of all layers, query groups and
    stages. Without an accelerator ``memory`` is the peak of the process, in
    MiB.
    """

    def get_log_after_iter(
        self, runner: Runner, batch_idx: int, mode: str
    ) -> tuple[dict, str]:
        """Return all scalars of an iteration, and its line."""
        scalars, line = super().get_log_after_iter(runner, batch_idx, mode)
        items = [
            item
            for item in line.rstrip().split('  ')
            if not _FURTHER_LOSS.match(item.partition(':')[0])
        ]
        is_logged = 'memory' in scalars or has_accelerator()
        if mode == 'train' and not is_logged:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            scalars['memory'] = usage.ru_maxrss // 1024
            items.append(f'memory: {scalars["memory"]}')
        return scalars, '  '.join(items)
