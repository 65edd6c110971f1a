# Copyright (c) mmdetr authors. All rights reserved.
"""Generators of denoising queries, for training."""

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
    """Random numbers for the noise of a batch of ground truths.

    Each row is of one noised ground truth; the first group comes first.

    Args:
        label_rand (Tensor): Uniform in [0, 1), decides which labels are
            replaced. Has shape (num_noised, ).
        labels (Tensor): Replacements, has shape (num_noised, ).
        box_rand (Tensor): Uniform in [0, 1), has shape (num_noised, 4).
        box_sign (Tensor, optional): -1 or 1, for contrastive noise, has
            shape (num_noised, 4).
    """

    label_rand: Tensor
    labels: Tensor
    box_rand: Tensor
    box_sign: Tensor | None = None


@dataclass(frozen=True)
class DNGroups:
    """Number of denoising groups.

    Attributes:
        dynamic (bool): Whether ``num_dn_queries`` is given instead of
            ``num_groups``.
        num_groups (int, optional): Number of groups; 0 disables denoising.
        num_dn_queries (int, optional): Number of queries, from which follow
            the groups: ``num_dn_queries`` over the largest number of objects
            of an image, at least one.
    """

    dynamic: bool = False
    num_groups: Count | None = None
    num_dn_queries: Count | None = None

    def count(self, max_count: int) -> int:
        """Number of groups for a batch.

        Args:
            max_count (int): Largest number of objects of an image.

        Raises:
            UserError: If the number that ``dynamic`` asks for is None.
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
        box_noise_scale (float): Largest shift of the centre, relative to half
            the size of a box, and largest change of its size, relative to
            the size.
        flip_to_no_object (bool): Whether a replaced label may become "no
            object", as in detrex.
        group_cfg (dict, optional): The groups, see :class:`DNGroups`. By
            default there are 5.
        seed (int, optional): Seed of a generator of its own. By default
            PyTorch's global generator is used.
    """

    label_noise_scale: Annotated[
        float, Range(0, 1, meaning='a probability')
    ] = 0.2
    box_noise_scale: NonNegative = 0.4
    flip_to_no_object: bool = False
    group_cfg: DNGroups | None = None
    seed: int | None = None


class DNQueryGenerator(nn.Module):
    """Generates denoising queries from ground truths.

    Source: `DN-DETR <https://arxiv.org/abs/2203.01305>`_, section 4. The
    content of a query is the embedding of a possibly flipped label, its
    reference a randomly shifted and scaled box; it is trained to reconstruct
    the ground truth. The last channel of the contents, the indicator, is 1
    for these queries and 0 for the matched ones.

    Random numbers are drawn on the host, so that a seed gives the same ones
    on every device.

    Args:
        num_classes (int): Number of classes. The label embedding has one more
            row, for "no object".
        embed_dims (int): Dimension of the queries, with the indicator.
        **settings: As in :class:`DNSettings`.

    Raises:
        UserError: If a setting is unknown or invalid.
    """

    num_copies = 1
    """Noised copies of a ground truth in each group."""
    default_settings: ClassVar[DNSettings] = DNSettings()
    flips_per_noise: ClassVar[float] = 1.0
    """Ratio of the flip probability to ``label_noise_scale``."""

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
        self.groups.count(0)  # raises for invalid ones
        self.num_noise_labels = num_classes + self.settings.flip_to_no_object
        self.label_embedding = self._label_table(embed_dims)
        self._generator = None
        if self.settings.seed is not None:
            self._generator = torch.Generator().manual_seed(self.settings.seed)

    def _label_table(self, embed_dims: int) -> nn.Embedding:
        """Embeddings of the classes and of "no object"."""
        return nn.Embedding(self.num_classes + 1, embed_dims - 1)

    def no_object_content(self) -> Tensor:
        """Content of a matched query: "no object", with indicator 0.

        Returns:
            Tensor: Has shape (dim, ).
        """
        return with_indicator(self.label_embedding.weight[-1], 0)

    def forward(
        self, labels: Tensor, bboxes: Tensor, counts: Sequence[int]
    ) -> DenoisingQueries:
        """Generate the denoising queries of a batch.

        Args:
            labels (Tensor): Labels of all images, concatenated, has shape
                (num_gts, ).
            bboxes (Tensor): Boxes (cx, cy, w, h) in [0, 1], has shape
                (num_gts, 4).
            counts (Sequence[int]): Number of ground truths of each image.

        Returns:
            DenoisingQueries: The queries; none if the batch has no object.
        """
        max_count = max(counts, default=0)
        num_groups = self.groups.count(max_count)
        group_size = self.num_copies * max_count
        layout = _layout(counts, num_groups, self.num_copies).to(
            labels.device, non_blocking=True
        )
        image, place, target, copy = layout.flatten(1)
        noise = self.draw_noise(len(target), labels.device)
        is_flipped = noise.label_rand < self.flip_probability
        contents = self._contents(
            torch.where(is_flipped, noise.labels, labels[target])
        )
        references = self._noised_references(bboxes[target], copy, noise)

        def laid_out(values: Tensor, filler: int) -> Tensor:
            shape = len(counts), num_groups * group_size, *values.shape[1:]
            fillers = values.new_full(shape, filler)
            return fillers.index_put((image, place), values)

        first_copies = layout[:, :, 0].flatten(1)
        return DenoisingQueries(
            # Depend on the embedding even without objects, for DDP.
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
            num (int): Number of noised ground truths.
            device (torch.device): Device of the result.

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

    def _contents(self, labels: Tensor) -> Tensor:
        """Contents of denoising queries, has shape (num_noised, dim)."""
        return with_indicator(self.label_embedding(labels), 1)

    def _noised_references(
        self, bboxes: Tensor, copy: Tensor, noise: DenoisingNoise
    ) -> Tensor:
        """Shift centres and scale sizes: logits, (num_noised, 4)."""
        sizes = bboxes[:, 2:]
        reach = torch.cat([sizes / 2, sizes], dim=1)
        reach = reach * self.settings.box_noise_scale
        noised = bboxes + (2 * noise.box_rand - 1) * reach
        return inverse_sigmoid(noised, eps=1e-3)


@dataclass(frozen=True)
class ContrastiveDNSettings(DNSettings):
    """:class:`DNSettings` with the defaults of DINO.

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
    """Generates positive and negative denoising queries.

    Source: `DINO <https://arxiv.org/abs/2203.03605>`_, section 3.3. Each group
    has a second copy of every ground truth, whose corners are shifted farther
    and which is trained as background. Contents have no indicator channel.

    Equal to mmdet's ``CdnQueryGenerator``, without host synchronization.
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
        """Shift corners, farther for negatives: logits, (num_noised, 4)."""
        if noise.box_sign is None:
            raise ValueError('contrastive noise has signs')
        # Positives by up to half the size, negatives by half to all of it.
        distance = (noise.box_rand + copy[:, None]) * noise.box_sign
        sizes = bboxes[:, 2:].repeat(1, 2)
        reach = sizes / 2 * self.settings.box_noise_scale
        corners = bbox_cxcywh_to_xyxy(bboxes)
        corners = corners + distance * reach
        noised = bbox_xyxy_to_cxcywh(corners.clamp(0, 1))
        return inverse_sigmoid(noised, eps=1e-3)


def with_indicator(contents: Tensor, indicator: int) -> Tensor:
    """Append the indicator channel to contents.

    Args:
        contents (Tensor): Has shape (..., dim - 1).
        indicator (int): 1 for noised, 0 for matched queries.

    Returns:
        Tensor: Has shape (..., dim).
    """
    return nn.functional.pad(contents, (0, 1), value=indicator)


def _layout(counts: Sequence[int], num_groups: int, num_copies: int) -> Tensor:
    """Compute, on the host, where each noised ground truth goes.

    Returns:
        Tensor: Image, index among the image's queries, ground truth and
        copy, has shape (4, num_groups, num_copies, num_gts).
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
