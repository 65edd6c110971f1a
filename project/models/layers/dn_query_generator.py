# Copyright (c) mmdetr authors. All rights reserved.
"""Makes denoising queries: ground truths with noise, for training alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from mmdet.models.layers.transformer import inverse_sigmoid
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_xyxy_to_cxcywh
from torch import Tensor, nn

from project.utils.errors import UserError, check_keys

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
        label_noise_scale (float): Probability that a label is replaced.
            Defaults to 0.2.
        box_noise_scale (float): Up to which share of half its width and
            height a box is moved, and of all of it scaled. Defaults to 0.4.
        flip_to_no_object (bool): Whether a replaced label may become "no
            object", as in detrex. Defaults to False.
        group_cfg (dict, optional): ``dynamic=False`` with ``num_groups``, or
            ``dynamic=True`` with ``num_dn_queries``, for as many groups as
            these queries give the image with most objects, at least one; 0
            groups switch denoising off. Defaults to 5 groups.
        seed (int, optional): Seed of the random numbers. By default they are
            those of PyTorch.

    Raises:
        UserError: If a scale or the number of groups is impossible, or
            ``group_cfg`` has another key.
    """

    num_copies = 1
    """Noised copies of a ground truth in each group."""

    def __init__(
        self,
        num_classes: int,
        embed_dims: int,
        *,
        label_noise_scale: float = 0.2,
        box_noise_scale: float = 0.4,
        flip_to_no_object: bool = False,
        group_cfg: dict | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_noise_scale <= 1:
            raise UserError(
                f'model.dn_cfg.label_noise_scale={label_noise_scale} should '
                'be a probability, 0 to 1'
            )
        if box_noise_scale < 0:
            raise UserError(
                f'model.dn_cfg.box_noise_scale={box_noise_scale} should be 0 '
                'or more'
            )
        self.num_classes = num_classes
        self.label_noise_scale = label_noise_scale
        self.box_noise_scale = box_noise_scale
        self.num_noise_labels = num_classes + flip_to_no_object
        self.group_cfg = _checked_groups(group_cfg)
        self.label_embedding = self._label_table(embed_dims)
        self._generator = None
        if seed is not None:
            self._generator = torch.Generator().manual_seed(seed)

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
        num_groups = self._num_groups(max_count)
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

    def _num_groups(self, max_count: int) -> int:
        """Number of groups for a batch whose fullest image is given."""
        if not self.group_cfg['dynamic']:
            return self.group_cfg['num_groups']
        num_queries = self.group_cfg['num_dn_queries']
        return min(num_queries, max(num_queries // max(max_count, 1), 1))

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
        is_flipped = noise.label_rand < self.label_noise_scale
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
        reach = torch.cat([sizes / 2, sizes], dim=1) * self.box_noise_scale
        noised = bboxes + (2 * noise.box_rand - 1) * reach
        return inverse_sigmoid(noised, eps=1e-3)


class ContrastiveDNQueryGenerator(DNQueryGenerator):
    """Makes queries of noised ground truths, and of others that fail.

    Source: `DINO <https://arxiv.org/abs/2203.03605>`_, section 3.3. Each group
    has a second copy of every ground truth, whose corners are moved farther
    than those of the first; it is to be background. Contents are embeddings
    of labels alone, as matched queries have contents of their own.

    With ``label_noise_scale`` halved (there it is twice the probability) it
    does as mmdet's ``CdnQueryGenerator``, without waiting for the device.
    """

    num_copies = 2

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
        reach = sizes / 2 * self.box_noise_scale
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


def _checked_groups(group_cfg: dict | None) -> dict:
    """Fill in the defaults and check what is given."""
    settings = dict(group_cfg or dict(dynamic=False, num_groups=5))
    known = ('dynamic', 'num_groups', 'num_dn_queries')
    check_keys('model.dn_cfg.group_cfg', settings, known)
    dynamic = settings.setdefault('dynamic', False)
    key = 'num_dn_queries' if dynamic else 'num_groups'
    number = settings.get(key)
    if not isinstance(number, int) or number < 0:
        raise UserError(
            f'model.dn_cfg.group_cfg.{key}={number!r} should be a whole '
            f'number, 0 or more, with dynamic={dynamic}'
        )
    return settings
