# Copyright (c) mmdetr authors. All rights reserved.
"""Makes denoising queries: ground truths with noise, for training alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any, ClassVar

import torch
from mmdet.models.layers.transformer import inverse_sigmoid
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from torch import Tensor, nn

from project.utils.errors import UserError
from project.utils.settings import Count, NonNegative, Range, read_settings

from .denoising_queries import DenoisingQueries


@dataclass
class DenoisingNoise:
    """Random numbers that a batch of ground truths is noised with.

    Each row belongs to one noised ground truth; those of the first group
    come first.

    Args:
        label_rand (Tensor): Uniform in [0, 1); decides whose label is
            replaced. Has shape (num_noised, ).
        labels (Tensor): The label that would replace it, has shape
            (num_noised, ).
        box_rand (Tensor): Uniform in [0, 1), has shape (num_noised, 4).
        box_sign (Tensor, optional): -1 or 1, of contrastive noise, has shape
            (num_noised, 4).
    """

    label_rand: Tensor
    labels: Tensor
    box_rand: Tensor
    box_sign: Tensor | None = None


@dataclass(frozen=True)
class DNGroups:
    """How many groups of denoising queries there are.

    Attributes:
        dynamic (bool): Whether the number of queries is given, not that of
            groups.
        num_groups (int, optional): Groups if it is not; 0 switches denoising
            off.
        num_dn_queries (int, optional): Queries if it is: there are as many
            groups as these give the image with most objects, at least one.
    """

    dynamic: bool = False
    num_groups: Count | None = None
    num_dn_queries: Count | None = None

    def count(self, max_count: int) -> int:
        """Number of groups for a batch.

        Args:
            max_count (int): Objects of the image with most.

        Raises:
            UserError: If the number that it takes is not given.
        """
        key = 'num_dn_queries' if self.dynamic else 'num_groups'
        number = getattr(self, key)
        if number is None:
            raise UserError(
                f'model.dn_cfg.group_cfg.{key}=None should be a whole number, '
                f'0 or more, with dynamic={self.dynamic}'
            )
        if not self.dynamic:
            return number
        return min(number, max(number // max(max_count, 1), 1))


@dataclass(frozen=True)
class DNSettings:
    """Settings of :class:`DNQueryGenerator`.

    Attributes:
        label_noise_scale (float): Probability that a label is replaced.
        box_noise_scale (float): Up to which share of half its width and
            height a box is moved, and of all of it scaled.
        flip_to_no_object (bool): Whether a replaced label may become "no
            object", as in detrex.
        group_cfg (dict, optional): The groups, see :class:`DNGroups`; 5 by
            default.
        seed (int, optional): Seed of the random numbers. By default they are
            those of PyTorch.
    """

    label_noise_scale: Annotated[
        float, Range(0, 1, meaning='a probability')
    ] = 0.2
    box_noise_scale: NonNegative = 0.4
    flip_to_no_object: bool = False
    group_cfg: DNGroups | None = None
    seed: int | None = None


class DNQueryGenerator(nn.Module):
    """Makes queries of noised ground truths.

    Source: `DN-DETR <https://arxiv.org/abs/2203.01305>`_, section 4. The
    content of such a query is the embedding of a label, at times a wrong one,
    its reference a box moved and scaled at random; it is to give back the
    ground truth. One further channel of the contents, the indicator, tells
    these queries (1) from the matched ones (0).

    The random numbers are drawn on the host, so that a seed gives the same
    ones on every device.

    Args:
        num_classes (int): Number of classes. The table of labels has one more
            row, for "no object".
        embed_dims (int): Dimension of the queries, indicator included.
        **settings: As in :class:`DNSettings`.

    Raises:
        UserError: If a setting is unknown or impossible.
    """

    num_copies = 1
    """Noised copies of a ground truth in each group."""
    default_settings: ClassVar[DNSettings] = DNSettings()
    flips_per_noise: ClassVar[float] = 1.0
    """Probability of a wrong label, by ``label_noise_scale``."""

    def __init__(
        self, num_classes: int, embed_dims: int, /, **settings: Any
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.settings = read_settings(
            self.default_settings, settings, 'model.dn_cfg'
        )
        self.flip_probability = (
            self.settings.label_noise_scale * self.flips_per_noise
        )
        self.groups = self.settings.group_cfg or DNGroups(num_groups=5)
        self.groups.count(0)  # refuses those that cannot work
        self.num_noise_labels = num_classes + self.settings.flip_to_no_object
        self.label_embedding = self._label_table(embed_dims)
        self._generator = None
        if self.settings.seed is not None:
            self._generator = torch.Generator().manual_seed(self.settings.seed)

    def _label_table(self, embed_dims: int) -> nn.Embedding:
        """Embeddings of the classes and of "no object"."""
        return nn.Embedding(self.num_classes + 1, embed_dims - 1)

    def no_object_content(self) -> Tensor:
        """Content of a matched query, with the indicator 0.

        Returns:
            Tensor: Has shape (dim, ).
        """
        return with_indicator(self.label_embedding.weight[-1], 0)

    def forward(
        self, labels: Tensor, bboxes: Tensor, counts: Sequence[int]
    ) -> DenoisingQueries:
        """Noise the ground truths of a batch and lay them out.

        Args:
            labels (Tensor): Labels of all images one after another, has shape
                (num_gts, ).
            bboxes (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (num_gts, 4).
            counts (Sequence[int]): Ground truths of each image.

        Returns:
            DenoisingQueries: The queries; none where there is no object.
        """
        max_count = max(counts, default=0)
        num_groups = self.groups.count(max_count)
        group_size = self.num_copies * max_count
        layout = _layout(counts, num_groups, self.num_copies).to(
            labels.device, non_blocking=True
        )
        image, place, target, copy = layout.flatten(1)
        noise = self.draw_noise(len(target), labels.device)
        contents = self._noised_contents(labels[target], noise)
        references = self._noised_references(bboxes[target], copy, noise)

        def laid_out(values: Tensor, filler: int) -> Tensor:
            shape = len(counts), num_groups * group_size, *values.shape[1:]
            fillers = values.new_full(shape, filler)
            return fillers.index_put((image, place), values)

        first_copies = layout[:, :, 0].flatten(1)
        return DenoisingQueries(
            # Without an object, too, they depend on the table, for DDP.
            laid_out(contents, 0),
            laid_out(references, 0),
            laid_out(torch.zeros_like(image, dtype=torch.bool), 1),
            num_groups,
            group_size,
            *first_copies[:3],
        )

    def draw_noise(self, num: int, device: torch.device) -> DenoisingNoise:
        """Draw the random numbers.

        Args:
            num (int): How many noised ground truths there are.
            device (torch.device): Where they go.

        Returns:
            DenoisingNoise: The numbers.
        """
        source = self._generator
        numbers = (
            torch.rand(num, generator=source),
            torch.randint(self.num_noise_labels, (num,), generator=source),
            torch.rand(num, 4, generator=source),
        )
        return DenoisingNoise(
            *(x.to(device, non_blocking=True) for x in numbers)
        )

    def _noised_contents(
        self, labels: Tensor, noise: DenoisingNoise
    ) -> Tensor:
        """Embed labels of which some are replaced.

        Returns:
            Tensor: Has shape (num_noised, dim).
        """
        is_flipped = noise.label_rand < self.flip_probability
        labels = torch.where(is_flipped, noise.labels, labels)
        return self._contents(labels)

    def _contents(self, labels: Tensor) -> Tensor:
        """Contents of denoising queries, has shape (num_noised, dim)."""
        return with_indicator(self.label_embedding(labels), 1)

    def _noised_references(
        self, bboxes: Tensor, copy: Tensor, noise: DenoisingNoise
    ) -> Tensor:
        """Move and scale boxes, centre and size each by itself.

        Returns:
            Tensor: Log-odds, has shape (num_noised, 4).
        """
        sizes = bboxes[:, 2:]
        reach = torch.cat([sizes / 2, sizes], dim=1)
        reach = reach * self.settings.box_noise_scale
        noised = bboxes + (2 * noise.box_rand - 1) * reach
        return inverse_sigmoid(noised, eps=1e-3)


@dataclass(frozen=True)
class ContrastiveDNSettings(DNSettings):
    """:class:`DNSettings` as DINO has them.

    Attributes:
        label_noise_scale (float): Twice the probability that a label is
            replaced.
    """

    label_noise_scale: Annotated[
        float, Range(0, 2, meaning='twice the probability of a wrong label')
    ] = 0.5
    box_noise_scale: NonNegative = 1.0
    group_cfg: DNGroups = DNGroups(dynamic=True, num_dn_queries=100)


class ContrastiveDNQueryGenerator(DNQueryGenerator):
    """Makes queries of noised ground truths, and of others that fail.

    Source: `DINO <https://arxiv.org/abs/2203.03605>`_, section 3.3. Each group
    has a second copy of every ground truth, whose corners are moved farther
    than those of the first; it is to be background. Contents are embeddings
    of labels alone, as matched queries have contents of their own.

    It does as mmdet's ``CdnQueryGenerator``, without waiting for the device.
    """

    num_copies = 2
    default_settings = ContrastiveDNSettings()
    flips_per_noise = 0.5

    def _label_table(self, embed_dims: int) -> nn.Embedding:
        """Embeddings of the classes."""
        return nn.Embedding(self.num_noise_labels, embed_dims)

    def _contents(self, labels: Tensor) -> Tensor:
        """Contents of denoising queries, has shape (num_noised, dim)."""
        return self.label_embedding(labels)

    def draw_noise(self, num: int, device: torch.device) -> DenoisingNoise:
        """Draw the random numbers, see :class:`DNQueryGenerator`."""
        noise = super().draw_noise(num, device)
        sign = torch.randint(2, (num, 4), generator=self._generator) * 2 - 1
        noise.box_sign = sign.to(device, non_blocking=True)
        return noise

    def _noised_references(
        self, bboxes: Tensor, copy: Tensor, noise: DenoisingNoise
    ) -> Tensor:
        """Move the corners of boxes, those of second copies farther.

        Returns:
            Tensor: Log-odds, has shape (num_noised, 4).
        """
        if noise.box_sign is None:
            raise ValueError('contrastive noise has signs')
        # Up to half the size, and for second copies up to all of it.
        distance = (noise.box_rand + copy[:, None]) * noise.box_sign
        sizes = bboxes[:, 2:].repeat(1, 2)
        reach = sizes / 2 * self.settings.box_noise_scale
        corners = bbox_cxcywh_to_xyxy(bboxes)
        corners = corners + distance * reach
        noised = bbox_xyxy_to_cxcywh(corners.clamp(0, 1))
        return inverse_sigmoid(noised, eps=1e-3)


def with_indicator(contents: Tensor, indicator: int) -> Tensor:
    """Append the channel that tells noised from matched queries.

    Args:
        contents (Tensor): Has shape (..., dim - 1).
        indicator (int): 1 for noised, 0 for matched queries.

    Returns:
        Tensor: Has shape (..., dim).
    """
    return nn.functional.pad(contents, (0, 1), value=indicator)


def _layout(counts: Sequence[int], num_groups: int, num_copies: int) -> Tensor:
    """Find the place of each noised ground truth, on the host.

    Returns:
        Tensor: Rows of image, place among the image's queries, ground truth
        and copy, has shape (4, num_groups, num_copies, num_gts).
    """
    max_count, num_gts = max(counts, default=0), sum(counts)
    first = torch.tensor([0, *accumulate(counts)])[:-1]
    image = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    target = torch.arange(num_gts)
    copies = torch.arange(num_groups * num_copies)
    copies = copies.view(num_groups, num_copies, 1)
    place = copies * max_count + target - first[image]
    rows = (image, place, target, copies % num_copies)
    return torch.stack([row.expand_as(place) for row in rows])
