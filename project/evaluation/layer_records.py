# Copyright (c) mmdetr authors. All rights reserved.
"""Records what each decoder layer predicts while a detector is tested."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

NUM_IMAGES = 500
"""Images that are recorded in a test, at most."""
Author = tuple[str, int]
"""What detects: a part of the layers, '' for all of it, and the number of
the layer, from 1."""


@dataclass
class LayerRecord:
    """Of one image; boxes are (x1, y1, x2, y2) in pixels of the original.

    Attributes:
        scores: Highest probability of each query after each layer, has shape
            (num_layers, num_queries). A query has the same place in all.
        labels: Its class, has the same shape.
        boxes: Has shape (num_layers, num_queries, 4).
        proposals: Boxes before the first layer, has shape (num_queries, 4);
            NaN if it starts from points.
        detections: Rows of box, score and label, by what detects them, have
            shape (num_detections, 6).
    """

    scores: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    proposals: np.ndarray
    detections: dict[Author, np.ndarray]


def has_layers(model: nn.Module) -> bool:
    """Whether the layers of a model can be recorded: one of this package."""
    head = getattr(model, 'bbox_head', None)
    return hasattr(model, 'decoder') and hasattr(head, 'ending_after')


def query_places(model: Any, decoder_output: Any) -> list[Tensor]:
    """Follow the queries, which Rank-DETR sorts between the layers.

    Args:
        model: A detector for which :func:`has_layers` is true.
        decoder_output: Its ``DecoderOutput``.

    Returns:
        list[Tensor]: Place in each layer's output of the query that is at
        each place of the first layer, each has shape (bs, num_queries).
    """
    states = decoder_output.hidden_states
    place = torch.arange(states.shape[2], device=states.device)
    places = [place.expand(states.shape[1:3])]
    order_after = getattr(model.decoder, 'order_after', None)
    for layer_id, queries in enumerate(states[:-1]):
        order = order_after and order_after(
            layer_id,
            queries,
            decoder_output.layer_groups[layer_id],
            model.bbox_head.cls_branches,
        )
        places.append(
            places[-1]
            if order is None
            else order.argsort(1).gather(1, places[-1])
        )
    return places


def followed(layers: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """Give each query the same place in all layers.

    Args:
        layers: Values of the queries, each has shape (bs, num_queries, ...).
        places: As of :func:`query_places`.

    Returns:
        Tensor: Has shape (num_layers, bs, num_queries, ...).
    """
    images = torch.arange(len(places[0]), device=places[0].device)[:, None]
    return torch.stack(
        [
            values[images, place]
            for values, place in zip(layers, places, strict=True)
        ]
    )


class LayerRecorder:
    """Records what all layers of a detector predict, in the same pass.

    Of HPR it also records what its auxiliary refiners detect with their own
    heads, and what is detected if a refiner is left out of the sums.

    Args:
        model: A detector for which :func:`has_layers` is true.
        num_images: Number of images, of which further ones are ignored.

    Attributes:
        records (dict[int, LayerRecord]): By ``img_id``.
        seconds (float): What recording took.
    """

    def __init__(self, model: Any, num_images: int = NUM_IMAGES) -> None:
        self.model = model
        self.records: dict[int, LayerRecord] = {}
        self.seconds = 0.0
        self._missing = num_images
        self._refiners = [
            layer
            for layer in model.decoder.layers
            if hasattr(layer, 'refiners')
        ]
        self._without: dict[str, Any] = {}

    def start(self) -> None:
        """Record from now on."""
        predict = self.model.bbox_head.predict

        def recording(
            decoder_output: Any, batch_data_samples: Any, **kwargs: Any
        ) -> Any:
            results = predict(decoder_output, batch_data_samples, **kwargs)
            if self._missing > 0:
                with self._timed():
                    self._record(
                        predict,
                        results,
                        decoder_output,
                        batch_data_samples,
                        kwargs,
                    )
            return results

        self.model.bbox_head.predict = torch.compiler.disable(recording)
        if self._refiners:
            self._hook = self.model.decoder.register_forward_hook(
                self._leave_out, with_kwargs=True
            )
            self._give_auxiliary(True)

    def stop(self) -> None:
        """Leave the model as it was."""
        del self.model.bbox_head.predict
        if self._refiners:
            self._hook.remove()
            self._give_auxiliary(False)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Add to the seconds, apart from what the device does before."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += perf_counter() - start

    def _give_auxiliary(self, gives: bool) -> None:
        for layer in self._refiners:
            layer.gives_auxiliary = gives

    def _leave_out(
        self, decoder: nn.Module, args: tuple, kwargs: dict, output: Any
    ) -> None:
        """Decode again, each time without one of the refiners."""
        self._without = {}
        if self._missing <= 0:
            self._give_auxiliary(False)
            return
        for name in self._refiners[0].refiners:
            with self._timed(), ExitStack() as stack:
                for layer in self._refiners:
                    stack.enter_context(layer.without(name))
                self._without[name] = decoder.forward(*args, **kwargs)

    def _record(
        self,
        predict: Callable,
        results: Any,
        decoder_output: Any,
        samples: Sequence[DetDataSample],
        kwargs: dict,
    ) -> None:
        """Record a batch."""
        head = self.model.bbox_head
        last = head.detection_settings().num_decoder_layers
        last = last or len(decoder_output.hidden_states)
        decoder_output = decoder_output.first_layers(last)
        found: dict[Author, Any] = {}
        for number in range(1, last):
            with head.ending_after(number):
                found['', number] = predict(decoder_output, samples, **kwargs)
        found['', last] = results
        branches = kwargs.get('auxiliary', ())
        names = self._refiners[0].refiners[:0:-1] if branches else ()
        for name, branch in zip(names, branches, strict=True):
            for number in range(1, last + 1):
                with branch.head.ending_after(number):
                    found[name, number] = branch.head.predict(
                        branch.decoder_output, samples
                    )
        for name, output in self._without.items():
            found[f'without {name}', last] = predict(output, samples, **kwargs)
        records = self._records(decoder_output, samples, found)
        for sample, record in zip(samples, records, strict=True):
            self.records[sample.img_id] = record
        self._missing -= len(samples)

    def _records(
        self,
        decoder_output: Any,
        samples: Sequence[DetDataSample],
        found: dict[Author, Any],
    ) -> Iterator[LayerRecord]:
        """Collect what is known of each image of a batch."""
        places = query_places(self.model, decoder_output)
        logits, boxes = self.model.bbox_head(decoder_output)
        scores, labels = (
            followed(values, places)
            for values in logits.float().sigmoid().max(-1)
        )
        first = decoder_output.references[0].float()
        if first.shape[-1] == 2:
            first = first.new_full((*first.shape[:-1], 4), torch.nan)
        boxes = torch.cat([first[None], followed(boxes.float(), places)])
        for index, sample in enumerate(samples):
            size = np.tile(sample.ori_shape[1::-1], 2).astype(np.float32)
            corners = _numpy(bbox_cxcywh_to_xyxy(boxes[:, index])) * size
            yield LayerRecord(
                _numpy(scores[:, index]),
                _numpy(labels[:, index]).astype(np.int16),
                corners[1:],
                corners[0],
                {who: _rows(batch[index]) for who, batch in found.items()},
            )


def _rows(instances: Any) -> np.ndarray:
    """Rows of box, score and label."""
    parts = (
        instances.bboxes.float(),
        instances.scores[:, None].float(),
        instances.labels[:, None].float(),
    )
    return _numpy(torch.cat(parts, 1))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()
