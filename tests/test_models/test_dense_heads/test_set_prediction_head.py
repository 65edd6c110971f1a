import pytest
import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from torch import nn

from project.models.dense_heads import SetPredictionHead
from project.models.layers.stage_outputs import DecoderOutput, FirstStageOutput
from project.utils.errors import UserError
from tools.analysis_tools.reference.set_prediction_batch import make_batch

CLASSES = 11
COSTS = [
    dict(type='FocalLossCost', weight=2.0),
    dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
    dict(type='IoUCost', iou_mode='giou', weight=2.0),
]


def head_settings(assigner: str) -> dict:
    return dict(
        num_classes=CLASSES,
        embed_dims=16,
        num_pred_layer=4,
        as_two_stage=True,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, loss_weight=2.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
        train_cfg=dict(assigner=dict(type=assigner, match_costs=COSTS)),
        test_cfg=dict(max_per_img=9),
    )


@pytest.fixture
def heads() -> tuple[nn.Module, nn.Module]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = DeformableDETRHead(**head_settings('HungarianAssigner'))
        ours = SetPredictionHead(
            **head_settings('BatchHungarianAssigner'), normalizer='pairs'
        )
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    return theirs.double(), ours.double()


def samples(batch: object) -> list[DetDataSample]:
    results = []
    for instances, meta in zip(*batch.instances(), strict=True):
        sample = DetDataSample(metainfo={**meta, 'scale_factor': (0.5, 0.25)})
        sample.gt_instances = instances
        results.append(sample)
    return results


def outputs() -> dict:
    generator = torch.Generator().manual_seed(4)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return dict(
        hidden_states=rand(3, 2, 30, 16) - 0.5,
        references=[rand(2, 30, 4) for _ in range(4)],
    )


def test_losses_have_the_names_and_values_of_mmdet(
    heads: tuple[nn.Module, nn.Module],
) -> None:
    theirs, ours = heads
    first_stage = make_batch((7, 4))
    enc = first_stage.groups[1]
    expected = theirs.loss(
        **outputs(),
        enc_outputs_class=enc['scores'][0],
        enc_outputs_coord=first_stage.boxes(enc)[0],
        batch_data_samples=samples(first_stage),
    )
    losses = ours.loss(**loss_inputs())
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        torch.testing.assert_close(
            value, expected[name].double().squeeze(), rtol=1e-6, atol=1e-9
        )


def loss_inputs() -> dict:
    first_stage = make_batch((7, 4))
    enc = first_stage.groups[1]
    points = torch.zeros(2, 0, 4)
    return dict(
        decoder_output=DecoderOutput(**outputs()),
        first_stage=FirstStageOutput(
            points, points, enc['scores'][0], first_stage.boxes(enc)[0]
        ),
        batch_data_samples=samples(first_stage),
    )


def test_an_assigner_that_matches_layer_by_layer() -> None:
    with pytest.raises(UserError, match="use 'BatchHungarianAssigner'"):
        SetPredictionHead(**head_settings('mmdet.HungarianAssigner'))


@pytest.mark.parametrize('name', ['loss_cls', 'loss_bbox', 'loss_iou'])
def test_a_weight_may_change_after_construction(
    heads: tuple[nn.Module, nn.Module], name: str
) -> None:
    _, head = heads
    before = head.loss(**loss_inputs())
    getattr(head, name).loss_weight *= 3
    for key, value in head.loss(**loss_inputs()).items():
        factor = 3 if key.endswith(name) else 1
        torch.testing.assert_close(value, before[key] * factor, msg=key)


class MmdetStyleHead(SetPredictionHead):
    """A user's, with the signature of mmdet's ``DeformableDETRHead``."""

    trains_on_predictions_alone = True

    def loss_by_feat(
        self,
        all_layers_cls_scores,
        all_layers_bbox_preds,
        enc_cls_scores,
        enc_bbox_preds,
        batch_gt_instances,
        batch_img_metas,
        batch_gt_instances_ignore=None,
    ):
        losses = super().loss_by_feat(
            all_layers_cls_scores,
            all_layers_bbox_preds,
            enc_cls_scores,
            enc_bbox_preds,
            batch_gt_instances,
            batch_img_metas,
            batch_gt_instances_ignore,
        )
        objects = sum(len(gt.labels) for gt in batch_gt_instances)
        losses['loss_users'] = all_layers_bbox_preds.sum() * 0 + objects
        return losses


def test_loss_by_feat_is_the_seam(heads: tuple[nn.Module, nn.Module]) -> None:
    _, ours = heads
    expected = ours.loss(**loss_inputs())
    ours.__class__ = MmdetStyleHead
    losses = ours.loss(**loss_inputs())
    assert losses.pop('loss_users') == 7 + 4
    assert losses == expected


def test_loss_by_feat_that_does_not_take_what_a_method_gives(
    heads: tuple[nn.Module, nn.Module],
) -> None:
    _, ours = heads
    ours.__class__ = MmdetStyleHead
    with pytest.raises(
        UserError, match=r'MmdetStyleHead.loss_by_feat .*keywords denoising'
    ):
        ours.loss(**loss_inputs(), denoising=None)


@pytest.mark.parametrize('rescale', [True, False])
def test_detections_are_those_of_mmdet(
    heads: tuple[nn.Module, nn.Module], rescale: bool
) -> None:
    theirs, ours = heads
    inputs = outputs()
    batch = samples(make_batch((7, 4)))
    expected = theirs.predict(
        **inputs, batch_data_samples=batch, rescale=rescale
    )
    found = ours.predict(
        DecoderOutput(**inputs), batch_data_samples=batch, rescale=rescale
    )
    for mine, reference in zip(found, expected, strict=True):
        assert torch.equal(mine.labels, reference.labels)
        torch.testing.assert_close(mine.scores, reference.scores)
        torch.testing.assert_close(
            mine.bboxes, reference.bboxes, check_dtype=False
        )


def test_boxes_may_leave_the_image(
    heads: tuple[nn.Module, nn.Module],
) -> None:
    _, head = heads
    scores = torch.zeros(1, 2, CLASSES, dtype=torch.float64)
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5]] * 2], dtype=torch.float64)
    metas = [dict(img_shape=(100, 200), scale_factor=(1.0, 1.0))]
    (clipped,) = head.predict_by_feat(scores, boxes, metas)
    assert clipped.bboxes.min() == 0
    head.test_cfg['clip_bboxes'] = False
    (free,) = head.predict_by_feat(scores, boxes, metas)
    assert free.bboxes[0].tolist() == [-50.0, -25.0, 50.0, 25.0]


def test_only_the_last_layer_detects(
    heads: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, head = heads
    layers = []
    original = head.forward_layer
    monkeypatch.setattr(
        head,
        'forward_layer',
        lambda layer_id, *args: (
            layers.append(layer_id) or original(layer_id, *args)
        ),
    )
    batch = samples(make_batch((7, 4)))
    head.predict(DecoderOutput(**outputs()), batch_data_samples=batch)
    assert layers == [2]


def test_a_method_may_rule_queries_out(
    heads: tuple[nn.Module, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, head = heads
    chosen = torch.zeros(2, 30, dtype=torch.bool)
    chosen[0, 3] = chosen[1, 8] = True
    monkeypatch.setattr(
        head, 'detectable_queries', lambda decoder_output: chosen
    )
    output = DecoderOutput(**outputs())
    scores, _ = head.forward_layer(
        2, output.hidden_states[2], output.references[2]
    )
    found = head.predict(output, samples(make_batch((7, 4))))
    for image, query in enumerate((3, 8)):
        best = scores[image, query].sigmoid().topk(9)
        torch.testing.assert_close(found[image].scores, best.values)
        assert found[image].labels.equal(best.indices)
        assert len(found[image].bboxes.unique(dim=0)) == 1
