import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi, bbox_cxcywh_to_xyxy

from project.models.layers.roi_features import MemoryRoIAlign
from project.models.layers.transformer.regional_layers import (
    Merger,
    RegionalCrossAttention,
)
from project.utils.errors import UserError
from tests.helpers.waiting_ops import WaitingOps
from tools.analysis_tools.reference.refiner_batch import (
    RefinerBatch,
    decoders,
    tensors,
)

EXTRACTOR = dict(
    type='SingleRoIExtractor',
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
    out_channels=16,
    featmap_strides=[8, 16, 32, 64],
    finest_scale=20,
)


pytestmark = pytest.mark.usefixtures('mmdet_scope')


@pytest.mark.parametrize('img_shapes', [[(96, 128)], [(64, 96), (90, 70)]])
def test_the_decoder_equals_the_plain_formulation(img_shapes):
    decoder, plain, branches = decoders(2, torch.float64)
    batch = RefinerBatch.make(img_shapes, 20, dtype=torch.float64)
    ours = tensors(batch.run(decoder, branches))
    expected = tensors(batch.run(plain, branches))
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, value.abs().max().item())
        gap = (ours[name] - value).abs().max().item()
        assert gap <= 1e-10 * scale, (name, gap)


def test_the_host_does_not_wait():
    decoder, _, branches = decoders(2)
    batch = RefinerBatch.make([(64, 96), (90, 70)], 8)
    with WaitingOps() as ops:
        batch.run(decoder, branches)
    assert not ops.found


def test_evaluation_has_no_auxiliary_results():
    decoder, plain, branches = decoders(1, torch.float64)
    inputs = RefinerBatch.make([(64, 64)], 8, dtype=torch.float64).inputs
    with torch.no_grad():
        output = decoder(**inputs, reg_branches=branches)
        assert len(output.auxiliary) == 2
        output = decoder.eval()(**inputs, reg_branches=branches)
        expected = plain.eval()(**inputs, reg_branches=branches)
    assert output.auxiliary == ()
    torch.testing.assert_close(
        output.hidden_states, expected.hidden_states, rtol=0, atol=1e-10
    )


def test_recomputed_layers_give_the_same(monkeypatch):
    """``num_cp`` changes neither names nor numbers."""
    from project.models.layers.recomputation import recompute_layers

    decoder, _, branches = decoders(2, torch.float64)
    batch = RefinerBatch.make([(64, 64)], 8, dtype=torch.float64)
    kept, names = (
        tensors(batch.run(decoder, branches)),
        [*decoder.state_dict()],
    )
    recompute_layers(decoder.layers, 2)
    recomputed = tensors(batch.run(decoder, branches))
    assert [*decoder.state_dict()] == names
    for name, value in kept.items():
        torch.testing.assert_close(
            recomputed[name], value, rtol=0, atol=1e-12, msg=name
        )


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [1, 2, 3])
def test_regions_are_those_of_mmdet(aligned: bool, ratio: int) -> None:
    """Boxes of no size, outside the image and of all levels among them."""
    config = {**EXTRACTOR, 'roi_layer': dict(EXTRACTOR['roi_layer'])}
    config['roi_layer'].update(aligned=aligned, sampling_ratio=ratio)
    shapes = [(12, 16), (6, 8), (3, 4), (2, 2)]
    generator = torch.Generator().manual_seed(0)
    memory = torch.randn(
        2, 256, 16, generator=generator, dtype=torch.float64
    ).requires_grad_()
    boxes = torch.rand(2, 40, 4, generator=generator, dtype=torch.float64)
    boxes[:, 0, 2:] = 0
    boxes[:, 1] = torch.tensor([0.5, 0.5, 1.0, 1.0])
    boxes[:, 2] = 1.0
    boxes[:, 3] = torch.tensor([0.0, 0.0, 0.01, 0.9])
    corners = bbox_cxcywh_to_xyxy(boxes) * torch.tensor([128, 96, 128, 96])
    align = MemoryRoIAlign(config)
    ours = align(memory, corners, shapes)
    assert align.levels(corners).unique().tolist() == [0, 1, 2]
    maps = [
        level.transpose(1, 2).unflatten(2, shape).contiguous()
        for level, shape in zip(
            memory.split([h * w for h, w in shapes], 1), shapes, strict=True
        )
    ]
    expected = MODELS.build(config)(maps, bbox2roi(list(corners)))
    expected = expected.flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    weight = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    grads = [
        torch.autograd.grad((x * weight).sum(), memory)[0]
        for x in (ours, expected)
    ]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(type='GenericRoIExtractor'), "'SingleRoIExtractor'"),
        (dict(roi_layer=dict(type='RoIPool', output_size=7)), 'RoIAlign'),
        (
            dict(
                roi_layer=dict(
                    type='RoIAlign', output_size=7, sampling_ratio=0
                )
            ),
            'sampling_ratio=1 or more',
        ),
    ],
)
def test_other_extractors_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MemoryRoIAlign({**EXTRACTOR, **change})


def test_mergers():
    features = [torch.full((1, 2, 3), float(i)) for i in (1, 2, 3)]
    by_channel = Merger('learnable_channel_aware', [1, 1, 1], 3)
    assert by_channel.weights.shape == (3, 3)
    assert (by_channel(*features) == 6).all()
    with torch.no_grad():
        by_channel.weights[1] = torch.tensor([1.0, 10.0, 100.0])
    assert by_channel(*features)[0, 0].tolist() == [6, 321, 6]
    one = Merger('learnable', [1, 2, 3], 3)
    assert (one(*features) == 14).all()
    assert [n for n, _ in one.named_parameters()] == ['weights']
    fixed = Merger('add', [1, 2, 3], 3)
    fixed.init_weights()
    assert (fixed(*features) == 6).all()
    assert not list(fixed.parameters())
    assert 'weights' in fixed.state_dict()
    with pytest.raises(UserError, match='merge_method'):
        Merger('mean', [1, 1, 1], 3)


def test_attention_weights_cannot_be_dropped():
    with pytest.raises(UserError, match='attn_drop'):
        RegionalCrossAttention(attn_drop=0.1)
