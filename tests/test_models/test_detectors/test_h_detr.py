import math

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

import project  # noqa: F401
from project.utils.errors import UserError
from tests.helpers.toy import (
    build_model,
    check_training_step,
    tiny_model_config,
    toy_batch,
)

R50 = 'h_detr/h-detr_r50_8xb2-12e_coco.py'
HYBRID = [R50, 'rank_detr/rank-detr_r50_8xb2-12e_coco.py']


def toy_config(**changes) -> ConfigDict:
    return tiny_model_config(R50, **changes)


@pytest.fixture(scope='module')
def detector() -> nn.Module:
    return build_model(toy_config())


@pytest.mark.parametrize('name', HYBRID)
def test_second_group_changes_nothing_of_the_first(name: str) -> None:
    """Queries of the first group do not see the second."""
    detector = build_model(tiny_model_config(name))
    batch, samples = toy_batch(((128, 128),), (3,))
    with torch.no_grad():
        alone, _ = detector.eval()(batch, samples, mode='tensor')
        both, _ = detector.train()(batch, samples, mode='tensor')
    assert alone.shape[2] == 12
    assert both.shape[2] == 32
    torch.testing.assert_close(both[:, :, :12], alone, rtol=1e-4, atol=1e-4)


def test_evaluation_runs_the_first_group_only(
    detector: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    for layer in detector.decoder.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, kwargs: counts.append(kwargs['query'].shape[1]),
            with_kwargs=True,
        )
    with torch.no_grad():
        detector.eval().predict(*toy_batch())
    assert counts == [12, 12]


@pytest.mark.parametrize('name', HYBRID)
def test_small_input_uses_the_proposals_there_are(name: str) -> None:
    model = build_model(tiny_model_config(name, num_queries=100))
    batch, samples = toy_batch(((32, 64),), (2,))
    losses = check_training_step(model, batch, samples)
    # Another rank with a larger input has these losses, so this one has, too.
    second_group = [v for name, v in losses.items() if 'one2many' in name]
    assert second_group == [0.0] * 6
    with torch.no_grad():
        (found,) = model.eval().predict(batch, samples)
    assert len(found.pred_instances) == model.test_cfg.max_per_img


def test_initial_weights() -> None:
    """The authors' initialisation: Xavier, focal prior, N(0, 1)."""
    model = build_model(toy_config(), seed=1)
    head = model.bbox_head
    assert len(head.cls_branches) == len(head.reg_branches) == 3
    for branch in head.cls_branches:
        torch.testing.assert_close(
            branch.bias, torch.full((80,), -math.log(99))
        )
    for branch in head.reg_branches:
        assert not branch[-1].weight.any()
        assert not branch[-1].bias.any()
    bound = math.sqrt(6 / (256 + 256))
    for linear in (model.memory_trans_fc, model.encoder.layers[0].self_attn):
        weight = getattr(linear, 'weight', None)
        weight = linear.value_proj.weight if weight is None else weight
        assert weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(
            bound / math.sqrt(3), rel=0.02
        )
    contents = model.query_embedding.weight
    assert contents.shape == (32, 256)
    assert contents.std().item() == pytest.approx(1, rel=0.05)
    offsets = model.decoder.layers[0].cross_attn.sampling_offsets
    assert not offsets.weight.any()
    for conv in (*model.neck.convs, *model.neck.extra_convs):
        assert not conv.conv.bias.any()


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        (dict(one2many=dict(num_queries=-1)), 'num_queries=-1 should be'),
        (dict(one2many=dict(num_copies=1.5)), 'num_copies=1.5 should be'),
        (dict(one2many=dict(copies=6)), "one2many takes no 'copies'"),
        (dict(as_two_stage=False), 'mixed_selection=True needs'),
        (
            dict(positional_encoding=dict(num_feats=64)),
            'num_feats=64 should be half of .* embed_dims=256',
        ),
        (
            dict(with_box_refine=False),
            'look_forward_twice=True needs with_box_refine=True',
        ),
        (
            dict(test_cfg=dict(max_per_img=961)),
            r'max_per_img=961 asks for more detections than .* = 960',
        ),
    ],
)
def test_settings_that_cannot_work(changes: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        build_model(toy_config(**changes))


@pytest.mark.parametrize(
    'one2many',
    [None, dict(num_queries=0, num_copies=6), dict(num_queries=20)],
)
def test_without_second_group(one2many: dict | None) -> None:
    """No queries or no copies mean no group, as in the authors' code."""
    config = toy_config()
    config.one2many = one2many
    model = build_model(config).train()
    assert model.query_embedding.num_embeddings == 12
    losses = model.loss(*toy_batch())
    assert not [name for name in losses if 'one2many' in name]
