# Copyright (c) mmdetr authors. All rights reserved.
"""Names of backbone weights, shared by all methods."""

import torch
from torch import Tensor

from project.checkpoints.layouts.rules import Rule
from project.utils.errors import UserError


def torchvision_resnet(prefix: str) -> tuple[Rule, ...]:
    """Rules for torchvision's ResNet names, which are mmdet's as well.

    Args:
        prefix (str): What the source puts in front, with its final dot.

    Returns:
        tuple[Rule]: The part of a table that the backbone needs.
    """
    names = (
        'conv1.weight',
        'bn1.{norm}',
        'layer{s}.{b}.conv{k}.weight',
        'layer{s}.{b}.bn{k}.{norm}',
        'layer{s}.{b}.downsample.0.weight',
        'layer{s}.{b}.downsample.1.{norm}',
    )
    return tuple(Rule(prefix + name, 'backbone.' + name) for name in names)


def detectron2_resnet(prefix: str) -> tuple[Rule, ...]:
    """Rules for detectron2's ResNet names (``stem``, ``res2``..``res5``).

    Args:
        prefix (str): What the source puts in front, with its final dot.

    Returns:
        tuple[Rule]: The part of a table that the backbone needs.
    """
    pairs = [
        ('stem.conv1.weight', 'conv1.weight'),
        ('stem.conv1.norm.{norm}', 'bn1.{norm}'),
    ]
    for stage in range(1, 5):
        source, target = f'res{stage + 1}.{{b}}.', f'layer{stage}.{{b}}.'
        pairs += [
            (source + 'conv{k}.weight', target + 'conv{k}.weight'),
            (source + 'conv{k}.norm.{norm}', target + 'bn{k}.{norm}'),
            (source + 'shortcut.weight', target + 'downsample.0.weight'),
            (source + 'shortcut.norm.{norm}', target + 'downsample.1.{norm}'),
        ]
    return tuple(
        Rule(prefix + source, 'backbone.' + target) for source, target in pairs
    )


def microsoft_swin(prefix: str) -> tuple[Rule, ...]:
    """Rules for the original Swin names, which detectron2 kept.

    Args:
        prefix (str): What the source puts in front, with its final dot.

    Returns:
        tuple[Rule]: The part of a table that the backbone needs.
    """
    block, ours = 'layers.{s}.blocks.{b}.', 'stages.{s}.blocks.{b}.'
    merging, merged = 'layers.{s}.downsample.', 'stages.{s}.downsample.'
    table = 'relative_position_bias_table'
    index = 'relative_position_index'
    entries = (
        ('patch_embed.proj.{leaf}', 'patch_embed.projection.{leaf}', None),
        ('patch_embed.norm.{leaf}', 'patch_embed.norm.{leaf}', None),
        (block + 'norm{k}.{leaf}', ours + 'norm{k}.{leaf}', None),
        (block + f'attn.{table}', ours + f'attn.w_msa.{table}', None),
        (block + f'attn.{index}', ours + f'attn.w_msa.{index}', checked_index),
        (block + 'attn.{qkv}.{leaf}', ours + 'attn.w_msa.{qkv}.{leaf}', None),
        (block + 'mlp.fc1.{leaf}', ours + 'ffn.layers.0.0.{leaf}', None),
        (block + 'mlp.fc2.{leaf}', ours + 'ffn.layers.1.{leaf}', None),
        (merging + 'reduction.weight', merged + 'reduction.weight', unfolded),
        (merging + 'norm.{leaf}', merged + 'norm.{leaf}', unfolded),
        ('norm{k}.{leaf}', 'norm{k}.{leaf}', None),
    )
    return tuple(
        Rule(prefix + source, 'backbone.' + target, transform)
        for source, target, transform in entries
    )


def unfolded(tensor: Tensor) -> Tensor:
    """Reorder the inputs of Swin's patch merging for mmdet.

    The original concatenates the four neighbours (row, column) as (0, 0),
    (1, 0), (0, 1), (1, 1), each a block of C channels. mmdet's ``unfold``
    groups the neighbours by channel, in row-major order.

    Args:
        tensor (Tensor): Has shape (..., 4C), the last axis in the original's
            order.

    Returns:
        Tensor: The same shape, the last axis in mmdet's order. If its size
        is no multiple of four it is unchanged, and the check of shapes fails.
    """
    if tensor.ndim == 0 or tensor.shape[-1] % 4:
        return tensor
    blocks = tensor.unflatten(-1, (4, -1))
    in_reading_order = blocks[..., [0, 2, 1, 3], :]
    return in_reading_order.transpose(-1, -2).flatten(-2)


def window_index(window: int) -> Tensor:
    """Row of Swin's relative position table for each pair of tokens.

    Args:
        window (int): Side of the attention window in tokens.

    Returns:
        Tensor: int64, has shape (window**2, window**2), both axes over the
        tokens in row-major order.
    """
    side = torch.arange(window)
    difference = side[:, None] - side + window - 1
    rows = difference[:, None, :, None] * (2 * window - 1)
    columns = difference[None, :, None, :]
    return (rows + columns).reshape(window**2, window**2)


def checked_index(tensor: Tensor) -> Tensor:
    """Return a saved ``relative_position_index``, if it is Swin's.

    Raises:
        UserError: If it has another order than mmdet's.
    """
    window = round(tensor.numel() ** 0.25)
    if not torch.equal(tensor, window_index(window).to(tensor)):
        raise UserError(
            'relative_position_index numbers the tokens of a window in '
            "another order than Swin's, which mmdet uses"
        )
    return tensor


def derived_buffers(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute the buffers that mmdet saves but the sources may not.

    Returns:
        dict[str, Tensor]: ``num_batches_tracked`` (0: no source has it) of
        each batch norm, and the ``relative_position_index`` of each Swin
        attention, unless they are in ``state_dict``.
    """
    buffers = {}
    for name, tensor in state_dict.items():
        stem, _, leaf = name.rpartition('.')
        if leaf == 'running_var':
            buffers[f'{stem}.num_batches_tracked'] = torch.tensor(0)
        elif leaf == 'relative_position_bias_table' and len(tensor):
            window = (round(len(tensor) ** 0.5) + 1) // 2
            buffers[f'{stem}.relative_position_index'] = window_index(window)
    return {k: v for k, v in buffers.items() if k not in state_dict}
