"""The first ranks of a checkpoint are a detector with fewer queries."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from project.checkpoints.converter import convert_file
from project.checkpoints.query_ranks import with_first_queries
from project.preflight.trained_config import trained_config
from project.utils.errors import UserError
from tests.helpers.toy import build_model, tiny_model_config, toy_batch

RANK = 'rank_detr/rank-detr_r50_8xb2-12e_coco.py'
H = 'h_detr/h-detr_r50_8xb2-12e_coco.py'
DINO = 'hpr/hpr-dino_r50_8xb2-12e_coco.py'
FEW = 5


@pytest.mark.parametrize('name', [RANK, H, DINO])
def test_it_detects_as_with_the_first_queries(name) -> None:
    config = tiny_model_config(name)
    config.test_cfg.max_per_img = 10
    few = copy.deepcopy(config)
    few.num_queries = FEW
    model = build_model(config).eval()
    for table in model.parameters():  # those of the ranks start at zero
        torch.nn.init.normal_(table, std=0.02) if not table.any() else None
    one2many = config.get('one2many') or {}
    num_others = one2many.get('num_queries', 0)
    before = model.state_dict()
    weights, num_before = with_first_queries(before, FEW, num_others)
    assert num_before == config.num_queries
    smaller = build_model(few, seed=1).eval()
    smaller.load_state_dict(weights)
    rows = weights['query_embedding.weight'][FEW:]
    others = before['query_embedding.weight'][num_before:]
    assert torch.equal(rows, others)
    assert len(rows) == num_others
    model.num_queries = FEW
    batch, samples = toy_batch()
    with torch.no_grad():
        expected, found = (
            [
                x.pred_instances
                for x in m.predict(batch, copy.deepcopy(samples))
            ]
            for m in (model, smaller)
        )
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other.bboxes, one.bboxes)
        torch.testing.assert_close(other.scores, one.scores)
        assert torch.equal(other.labels, one.labels)


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        ('dn_detr/dn-detr_r50_8xb2-50e_coco.py', 'learned one by one'),
        ('anchor_detr/anchor-detr_r50_8xb2-50e_coco.py', 'learned one by one'),
        ('deta/deta_r50_5scale_8xb2-12e_coco.py', 'set model.num_queries'),
        ('hpr/hpr-ddq_r50_8xb2-12e_coco.py', 'set model.num_queries'),
    ],
)
def test_methods_without_ranks(config, words) -> None:
    names = {
        'dn': ['query_embedding.weight'],
        'an': ['anchor_points.weight'],
        'de': ['memory_trans_fc.weight', 'pix_trans_fc.weight'],
        'hp': ['memory_trans_fc.weight', 'query_map.weight'],
    }[config[:2]]
    weights = {name: torch.ones(6, 4) for name in names}
    with pytest.raises(UserError, match=words):
        with_first_queries(weights, FEW, 0)


@pytest.mark.parametrize('count', [0, 5])
def test_no_more_than_there_are(count) -> None:
    weights = {
        'memory_trans_fc.weight': torch.ones(2, 2),
        'query_embedding.weight': torch.ones(6, 2),
    }
    with pytest.raises(UserError, match='expected 1 to 4'):
        with_first_queries(weights, count, num_one2many=2)


def test_the_file_holds_its_config(tmp_path: Path) -> None:
    config = tmp_path / 'mine.py'
    model = tiny_model_config(RANK)
    source, target = tmp_path / 'mine.pth', tmp_path / 'fewer.pth'
    weights = build_model(copy.deepcopy(model)).state_dict()
    torch.save(dict(state_dict=weights), source)
    Config(dict(model=model)).dump(config)
    converted, _ = convert_file(source, target, config=config, num_queries=FEW)
    assert converted.num_queries == (12, FEW)
    assert trained_config(str(target)).model.num_queries == FEW
    with pytest.raises(UserError, match='expected 1 to 12'):
        convert_file(source, tmp_path / 'a.pth', config=config, num_queries=13)
