import copy

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

import project  # noqa: F401
from tests.helpers.toy import build_model, tiny_model_config, toy_batch

R50 = 'align_detr/align-detr_r50_8xb2-12e_coco.py'


def mmdet_config(config: ConfigDict) -> ConfigDict:
    """mmdet's DINO of the same size."""
    config = copy.deepcopy(config)
    config.type, config.bbox_head.type = 'DINO', 'DINOHead'
    for name in ('all_layers_num_gt_repeat', 'alpha', 'gamma', 'tau'):
        del config.bbox_head[name]
    config.train_cfg = None
    for coder in (config.encoder, config.decoder):
        coder.pop('num_cp', None)
    return config


def test_detections_are_those_of_mmdets_dino() -> None:
    """The two differ in losses alone."""
    config = tiny_model_config(R50)
    ours = build_model(config).eval()
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = MODELS.build(mmdet_config(config)).eval()
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
