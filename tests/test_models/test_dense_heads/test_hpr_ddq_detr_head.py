from dataclasses import replace

import torch

from project.models.dense_heads import HPRDDQDETRHead
from project.models.layers.stage_outputs import DecoderOutput
from project.models.layers.transformer.ddq_decoder import DistinctQueryGroups
from project.models.layers.transformer.query_groups import QueryGroup
from tests.helpers.toy import build_model, toy_batch, toy_model_config


def test_only_who_is_alive_at_last_is_detected() -> None:
    model = build_model(toy_model_config('_base_/models/hpr_ddq_r50.py'))
    head: HPRDDQDETRHead = model.bbox_head
    keep = torch.ones(2, 6, dtype=torch.bool)
    keep[:, [0, 2, 3]] = False
    groups = DistinctQueryGroups([QueryGroup('matching', 6)])
    generator = torch.Generator().manual_seed(0)
    output = DecoderOutput(
        torch.randn(2, 2, 6, 256, generator=generator),
        list(torch.rand(3, 2, 6, 4, generator=generator)),
        (groups, groups.followed_by(keep)),
    )
    everyone = replace(output, layer_groups=(groups, groups))
    inputs = dict(batch_data_samples=toy_batch()[1], rescale=False)
    # More than the pairs of one alive and a class.
    head.test_cfg = dict(max_per_img=4 * 80)
    with torch.no_grad():
        found = head.predict(output, **inputs)
        all_found = head.predict(everyone, **inputs)
    for some, everything in zip(found, all_found, strict=True):
        assert len(some) == 3 * 80
        assert (some.scores > 0).all()
        assert len(some.bboxes.unique(dim=0)) == 3
        assert len(everything) == 4 * 80
        assert len(everything.bboxes.unique(dim=0)) == 6
