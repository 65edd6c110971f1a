import copy

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

import project  # noqa: F401
from tests.helpers.toy import build_model, toy_batch, toy_model_config


def toy_config() -> ConfigDict:
    """Align-DETR on DINO's own layers, as it was published."""
    model = toy_model_config('_base_/models/hpr_align-detr_r50.py')
    model.update(type='AlignDETR', aux_weights=[])
    model.backbone.update(depth=18, frozen_stages=-1, norm_cfg=dict(type='BN'))
    model.neck.in_channels = [128, 256, 512]
    model.bbox_head.update(
        type='AlignDETRHead', all_layers_num_gt_repeat=[2, 1, 2]
    )
    del model.decoder['bbox_roi_extractor']
    for name in (
        'merge_method',
        'initial_weights',
        'dy_conv_cfg',
        'regional_ca_cfg',
    ):
        del model.decoder.layer_cfg[name]
    return model


def mmdet_config(config: ConfigDict) -> ConfigDict:
    """mmdet's DINO of the same size."""
    config = copy.deepcopy(config)
    del config['aux_weights']
    config.type, config.bbox_head.type = 'DINO', 'DINOHead'
    del config['use_dn']
    for name in ('all_layers_num_gt_repeat', 'alpha', 'gamma', 'tau'):
        del config.bbox_head[name]
    config.train_cfg = None
    for coder in (config.encoder, config.decoder):
        coder.pop('num_cp', None)
    return config


def test_detections_are_those_of_mmdets_dino() -> None:
    """The two differ in losses alone."""
    ours = build_model(toy_config()).eval()
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = MODELS.build(mmdet_config(toy_config())).eval()
    theirs.load_state_dict(ours.state_dict())
    found = []
    for model in (ours, theirs):
        batch, samples = toy_batch()
        with torch.no_grad():
            results = model.double().predict(batch.double(), samples)
        found.append([sample.pred_instances for sample in results])
    for mine, expected in zip(*found, strict=True):
        torch.testing.assert_close(mine.scores, expected.scores)
        torch.testing.assert_close(mine.bboxes, expected.bboxes)
        assert mine.labels.equal(expected.labels)


def test_it_trains() -> None:
    model = build_model(toy_config()).train()
    losses = model.loss(*toy_batch(num_gts=(4, 0)))
    expected = {
        f'{stage}{group}loss_{term}'
        for stage in ('', 'd0.')
        for group in ('', 'dn_')
        for term in ('cls', 'bbox', 'iou')
    } | {f'enc_loss_{term}' for term in ('cls', 'bbox', 'iou')}
    assert losses.keys() == expected
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name
