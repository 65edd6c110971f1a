"""What is recorded in one pass is what each decoder layer detects."""

import copy
from functools import cache

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from project.evaluation.layer_records import (
    LayerRecord,
    LayerRecorder,
    followed,
    has_layers,
    query_places,
)
from project.models.layers.stage_outputs import DecoderOutput
from tests.helpers.toy import build_model, tiny_model_config, toy_batch

CONFIGS = {
    'anchor': 'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py',
    'hpr': 'hpr/hpr-ddq_r50_8xb2-88k_coco.py',
    'rank': 'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
}


@pytest.fixture(scope='module', params=CONFIGS)
def detector(request: pytest.FixtureRequest) -> nn.Module:
    return build(request.param)


@cache
def build(name: str) -> nn.Module:
    """A detector whose layers move boxes and reorder queries."""
    model = build_model(tiny_model_config(CONFIGS[name])).eval()
    for branch in model.bbox_head.reg_branches:
        nn.init.normal_(branch[-1].weight, std=0.1)
    for branch in model.bbox_head.cls_branches:
        nn.init.normal_(branch.weight, std=0.3)
    return model


def detect(model: nn.Module) -> list[Tensor]:
    """Rows of box, score and label of each image."""
    batch, samples = toy_batch()
    for number, sample in enumerate(samples, 1):
        sample.set_metainfo(dict(img_id=number))
    with torch.no_grad():
        found = model.predict(batch, samples)
    return [
        torch.cat([x.bboxes, x.scores[:, None], x.labels[:, None]], 1)
        for x in (sample.pred_instances for sample in found)
    ]


def decode(model: nn.Module) -> DecoderOutput:
    outputs = []
    hook = model.decoder.register_forward_hook(
        lambda *args: outputs.append(args[2])
    )
    detect(model)
    hook.remove()
    return outputs[0]


def record(model: nn.Module) -> dict[int, LayerRecord]:
    recorder = LayerRecorder(model)
    recorder.start()
    detect(model)
    recorder.stop()
    return recorder.records


def test_layers_detect_what_they_do_alone(detector: nn.Module) -> None:
    assert has_layers(detector)
    before = detect(detector)
    records = record(detector)
    assert all(map(torch.equal, before, detect(detector)))  # left as it was
    for number in (1, 2):
        with detector.bbox_head.ending_after(number):
            expected = detect(detector)
        for image, rows in enumerate(expected, 1):
            found = records[image].detections['', number]
            np.testing.assert_allclose(found, rows, rtol=1e-6)
    assert not torch.equal(
        before[0], torch.from_numpy(records[1].detections['', 1])
    )


def test_best_query_is_the_best_detection(detector: nn.Module) -> None:
    for one in record(detector).values():
        for layer in (0, 1):
            best = one.scores[layer].argmax()
            row = one.detections['', layer + 1][0]
            assert row[4] == pytest.approx(one.scores[layer, best])
            box = one.boxes[layer, best].clip(0)
            inside = box < row[:4].max()  # clipped at the image's edge
            np.testing.assert_allclose(row[:4][inside], box[inside], rtol=1e-4)


def test_queries_are_followed_through_the_ranks() -> None:
    """The box after a layer is the reference of the same query in the next."""
    model = build('rank')
    output = decode(model)
    places = query_places(model, output)
    assert not torch.equal(places[0], places[1])
    with torch.no_grad():
        _, boxes = model.bbox_head(output)
    boxes = followed(boxes, places)
    references = followed(output.references[1:], [*places[1:], places[1]])
    torch.testing.assert_close(boxes[0], references[0], atol=1e-5, rtol=0)
    assert not torch.allclose(boxes[0], output.references[1], atol=1e-2)


def test_refiners_of_hpr() -> None:
    model = build('hpr')
    whole = detect(model)
    records = record(model)
    names = ('regional cross attention', 'dynamic convolution')
    authors = {('', 1), ('', 2)}
    authors |= {(name, number) for name in names for number in (1, 2)}
    authors |= {
        (f'without {name}', 2) for name in model.decoder.layers[0].refiners
    }
    assert set(records[1].detections) == authors
    smaller = copy.deepcopy(model)
    for layer in smaller.decoder.layers:
        for merger in (layer.merger_SA, layer.merger_FFN):
            merger.weights.data[:, 1] = 0
    for rows, found in zip(detect(smaller), records.values(), strict=True):
        part = found.detections['without dynamic convolution', 2]
        np.testing.assert_allclose(part, rows, rtol=1e-6)
    assert not torch.equal(detect(smaller)[0], whole[0])
    for layer in model.decoder.layers:
        layer.gives_auxiliary = True
    branch = model.auxiliary_branches(decode(model))[1]
    for layer in model.decoder.layers:
        layer.gives_auxiliary = False
    with torch.no_grad():
        logits, boxes = branch.head(branch.decoder_output)
    score = logits[-1, 0].sigmoid().amax()
    row = records[1].detections['dynamic convolution', 2][0]
    assert row[4] == pytest.approx(float(score))
    query = logits[-1, 0].amax(-1).argmax()
    box = bbox_cxcywh_to_xyxy(boxes[-1, 0, query])
    size = torch.tensor([192, 128, 192, 128])
    expected = box.clamp(0, 1) * size
    np.testing.assert_allclose(row[:4], expected, rtol=1e-4, atol=1e-4)


def test_further_images_are_not_recorded() -> None:
    model = build('anchor')
    recorder = LayerRecorder(model, num_images=2)
    recorder.start()
    detect(model)
    recorder.records.clear()
    detect(model)
    recorder.stop()
    assert not recorder.records
