"""The stages of a detector, under the goldens' names of their results."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from mmdet.structures import SampleList
from mmengine.logging import MessageHub
from torch import Tensor

from project.models.detectors import BaseDeformableDETR
from project.models.layers.transformer.feature_levels import level_masks
from project.models.task_modules.set_prediction import (
    MatchedPairs,
    PendingMatch,
    Predictions,
)

MAX_ITERS = 1_000_000
"""Length of the training that goldens are taken to be part of."""


def run_stages(
    model: BaseDeformableDETR, img: Tensor, samples: SampleList
) -> tuple[dict[str, Tensor], dict]:
    """Run the detector stage by stage.

    Returns:
        tuple[dict, dict]: Intermediate results by name, and the keyword
        arguments of the head.
    """
    feats = model.extract_feat(img)
    encoder_inputs, decoder_inputs = model.pre_transformer(feats, samples)
    encoder_outputs = model.forward_encoder(**encoder_inputs)
    with _spied(model, 'choose_proposals') as chosen:
        queries, head_inputs = model.pre_decoder(**encoder_outputs)
    decoder_inputs.update(queries)
    head_inputs.update(model.forward_decoder(**decoder_inputs))
    output = head_inputs['decoder_output']
    cls_scores, boxes = model.bbox_head(**head_inputs)
    masks = level_masks(feats, samples)
    results = dict(
        memory=encoder_outputs['memory'],
        memory_mask=encoder_outputs['memory_mask'],
        query=queries['query'],
        query_pos=queries['query_pos'],
        init_reference=queries['reference_points'],
        valid_ratios=encoder_inputs['valid_ratios'],
        inter_references=torch.stack(output.references[1:]),
        hs=output.hidden_states,
        logits=cls_scores,
        boxes=boxes,
        logits_last=cls_scores[-1],
        boxes_last=boxes[-1],
    )
    for level, (feat, mask) in enumerate(zip(feats, masks, strict=True)):
        results[f'neck{level}'] = feat
        results[f'pos{level}'] = model.positional_encoding(mask, input=feat)
    if chosen:
        results['topk_indices'] = chosen[0]
        results.update(_first_stage(model, encoder_outputs))
    return results, head_inputs


def _first_stage(
    model: BaseDeformableDETR, encoder_outputs: dict
) -> dict[str, Tensor]:
    """All logits and boxes, which evaluation computes only in part."""
    memory, anchors = model.gen_encoder_output_proposals(
        *(
            encoder_outputs[name]
            for name in ('memory', 'memory_mask', 'level_shapes')
        )
    )
    branch = model.decoder.num_layers
    boxes = model.bbox_head.reg_branches[branch](memory) + anchors
    return dict(
        enc_logits=model.bbox_head.cls_branches[branch](memory),
        enc_boxes=boxes.sigmoid(),
        anchors=anchors.sigmoid(),
    )


@contextmanager
def _spied(owner: object, method: str) -> Iterator[list]:
    """Collect what a method returns."""
    results = []
    original = getattr(owner, method)

    def spy(*args, **kwargs):
        results.append(original(*args, **kwargs))
        return results[-1]

    with mock.patch.object(owner, method, spy):
        yield results


@contextmanager
def recorded_matches() -> Iterator[dict[str, tuple]]:
    """Collect the predictions, and their pairs, by prefix."""
    matches: dict[str, tuple[Predictions, MatchedPairs]] = {}
    original = PendingMatch.result

    def spy(self: PendingMatch) -> list[MatchedPairs]:
        pairs = original(self)
        for each, matched in zip(self.sets, pairs, strict=True):
            predictions = each.predictions
            matches[predictions.branch + predictions.prefix] = (
                predictions,
                matched,
            )
        return pairs

    with mock.patch.object(PendingMatch, 'result', spy):
        yield matches


def set_progress(iteration: int) -> None:
    """Tell the model how far the training has come, as the Runner does.

    Args:
        iteration: Of :data:`MAX_ITERS`.
    """
    hub = MessageHub.get_current_instance()
    hub.update_info('iter', iteration)
    hub.update_info('max_iters', MAX_ITERS)
