# Copyright (c) mmdetr authors. All rights reserved.
"""Compares the batch size with the one that the schedule is meant for."""

from mmengine.config import Config


def other_batch(cfg: Config, num_processes: int) -> list[str]:
    """Compare the total batch size with ``auto_scale_lr.base_batch_size``.

    Returns:
        list[str]: A warning for each setting meant for another batch size.
    """
    scaling = cfg.get('auto_scale_lr') or {}
    wrapper = cfg.get('optim_wrapper') or {}
    intended = scaling.get('base_batch_size')
    per_process = (cfg.get('train_dataloader') or {}).get('batch_size')
    if intended is None or per_process is None:
        return []
    batch = per_process * num_processes
    sentences = []
    max_iters = (cfg.get('train_cfg') or {}).get('max_iters')
    if max_iters is not None and batch != intended:
        sentences.append(
            f'{max_iters} iterations were meant for batches of {intended} '
            f'images, and these have {batch}: set train_cfg.max_iters, '
            'the milestones of param_scheduler and the intervals to '
            f'{intended / batch:g} times theirs for as much training.'
        )
    accumulated = wrapper.get('accumulative_counts') or 1
    if not scaling.get('enable'):
        lr = (wrapper.get('optimizer') or {}).get('lr')
        step = batch * accumulated
        if step != intended and isinstance(lr, (int, float)):
            sentences.append(_other_rate(lr, intended, step, accumulated))
    elif accumulated > 1:
        sentences.append(
            f'--auto-scale-lr counts batches of {batch} images, but '
            f'{accumulated} of them make a step: set '
            f'auto_scale_lr.base_batch_size to {intended / accumulated:g}.'
        )
    return sentences


def _other_rate(lr: float, intended: int, step: int, accumulated: int) -> str:
    """Warn that the learning rate is meant for another batch size."""
    # mmengine's --auto-scale-lr ignores gradient accumulation.
    remedy = (
        '--auto-scale-lr sets that'
        if accumulated == 1
        else f'set optim_wrapper.optimizer.lr={lr * step / intended:g}'
    )
    return (
        f'The learning rate {lr:g} was meant for steps of {intended} images, '
        f'and these have {step}; in proportion it would be '
        f'{lr * step / intended:g}: {remedy}, or, if {lr:g} is right, say so '
        f'by auto_scale_lr.base_batch_size={step}.'
    )
