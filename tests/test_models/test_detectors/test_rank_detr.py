import copy

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from project.models.layers.transformer.rank_decoder import RankDecoder
from project.utils.errors import UserError
from tests.helpers.toy import (
    build_model,
    check_training_step,
    tiny_model_config,
    toy_batch,
    toy_model_config,
)

R50 = 'rank_detr/rank-detr_r50_8xb2-12e_coco.py'


def toy_config(**changes) -> ConfigDict:
    return tiny_model_config(R50, **changes)


@pytest.fixture(scope='module')
def detector() -> nn.Module:
    return build_model(toy_config())


@pytest.mark.parametrize('num_gts', [(0, 3), (0, 0), (30, 1)])
def test_late_losses_with_few_and_many_objects(
    detector: nn.Module,
    num_gts: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assigner = detector.bbox_head.assigner
    monkeypatch.setattr(assigner, 'match_costs', assigner.late_match_costs)
    losses = check_training_step(detector, *toy_batch(num_gts=num_gts))
    for name, value in losses.items():
        assert (value > 0) == (name.endswith('loss_cls') or any(num_gts)), name


def test_initial_weights(detector: nn.Module) -> None:
    """Biases of ranks 0; contents drawn, as the code's last step does."""
    fresh = build_model(toy_config())
    for table in fresh.bbox_head.rank_adaptive_classhead_emb:
        assert table.weight.shape == (32, 80)
        assert (table.weight == 0).all()
    bound = (6 / (32 + 256)) ** 0.5  # of Xavier's uniform distribution
    for table in fresh.decoder.rank_aware_content_query:
        assert 0.9 * bound < table.weight.abs().max() <= bound
    first, *others = (x.state_dict() for x in fresh.bbox_head.cls_branches)
    for other in others:
        assert all(first[k].equal(other[k]) for k in first)


def test_switches() -> None:
    def tensors(**switches: bool) -> set[str]:
        names = build_model(toy_config(**switches)).state_dict()
        return {n for n in names if 'rank' in n or 'racq' in n}

    head = tensors(query_rank_layer=False)
    layer = tensors(rank_adaptive_classhead=False)
    assert all('classhead_emb' in name for name in head)
    assert all('racq' in n or 'content_query' in n for n in layer)
    assert tensors() == head | layer
    assert not tensors(query_rank_layer=False, rank_adaptive_classhead=False)


def test_evaluation_uses_the_first_ranks(detector: nn.Module) -> None:
    """Detections are those of a model without the second group's ranks."""
    batch, samples = toy_batch(((128, 128),), (3,))
    with torch.no_grad():
        expected, _ = detector.eval()(batch, samples, mode='tensor')
        tables = [
            *detector.bbox_head.rank_adaptive_classhead_emb,
            *detector.decoder.rank_aware_content_query,
        ]
        kept = [table.weight.clone() for table in tables]
        for table in tables:
            table.weight[12:] = 1e3
        found, _ = detector(batch, samples, mode='tensor')
        for table, weight in zip(tables, kept, strict=True):
            table.weight.copy_(weight)
    assert torch.equal(found, expected)


def test_the_parts_serve_another_head() -> None:
    """The loss and the cost are H-DETR's by config alone."""
    config = toy_model_config('h_detr/h-detr_r50_8xb2-12e_coco.py')
    config.bbox_head.enc_loss_cls = copy.deepcopy(config.bbox_head.loss_cls)
    config.bbox_head.loss_cls.type = 'GIoUAwareFocalLoss'
    config.train_cfg.assigner.match_costs = [dict(type='HighOrderIoUCost')]
    model = build_model(config).train()
    losses = model.loss(*toy_batch())
    assert all(value.isfinite() and value > 0 for value in losses.values())
    model.bbox_head.enc_loss_cls.loss_weight = 0.0
    assert model.loss(*toy_batch())['enc_loss_cls'] == 0


def test_every_parameter_trains_under_autocast(detector: nn.Module) -> None:
    """Ranks are taken in full precision, and cut no gradient off."""
    with torch.autocast('cpu', torch.bfloat16):
        check_training_step(detector, *toy_batch())
    heads = detector.bbox_head.cls_branches
    assert all(head.weight.grad.any() for head in heads)


def test_ranks_are_those_of_full_precision() -> None:
    """Half precision would make ties of scores that are this close."""
    config = toy_config().decoder
    decoder = RankDecoder(**{k: v for k, v in config.items() if k != 'type'})
    head = nn.Linear(32, 1)
    with torch.no_grad():
        head.weight.copy_(torch.eye(1, 32))
        head.bias.zero_()
    query = torch.zeros(1, 50, 32)
    query[0, :, 0] = 1 + torch.arange(50) * 1e-5
    index = torch.arange(50.0)[None, :, None].expand(-1, -1, 4)
    with torch.autocast('cpu', torch.bfloat16):
        _, _, reference, _ = decoder.hand_over(
            0, query, query, index, cls_branches=[head]
        )
    assert reference.equal(index.flip(1))


def test_a_head_without_ranks_is_told() -> None:
    config = toy_config()
    config.bbox_head.type = 'HDETRHead'
    with pytest.raises(UserError, match=r'RankDETRHead.*, not .*HDETRHead'):
        build_model(config)
