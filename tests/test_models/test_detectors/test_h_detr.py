import copy
import math

import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

import project  # noqa: F401
from project.utils.errors import UserError
from tests.helpers.toy import build_model, toy_batch, toy_model_config

R50 = 'h_detr/h-detr_r50_8xb2-12e_coco.py'


def toy_config(**changes) -> ConfigDict:
    config = toy_model_config(R50, **changes)
    config.backbone.depth = 18
    config.backbone.frozen_stages = -1
    config.neck.in_channels = [128, 256, 512]
    return config


@pytest.fixture(scope='module')
def detector() -> nn.Module:
    return build_model(toy_config())


@pytest.mark.parametrize('num_gts', [(0, 3), (0, 0), (30, 1)])
def test_losses_with_few_and_many_objects(
    detector: nn.Module, num_gts: tuple[int, int]
) -> None:
    detector.train().zero_grad()
    losses = detector.loss(*toy_batch(num_gts=num_gts))
    sum(losses.values()).backward()
    for name, value in losses.items():
        assert value.isfinite(), name
        if name.endswith('loss_cls') or any(num_gts):
            assert value > 0, name
        else:
            assert value == 0, name
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_loss_names(detector: nn.Module) -> None:
    losses = detector.train().loss(*toy_batch())
    terms = ('loss_cls', 'loss_bbox', 'loss_iou')
    prefixes = ('', 'd0.', 'enc_', 'one2many_', 'd0.one2many_')
    assert set(losses) == {p + t for p in prefixes for t in terms}


def test_loss_in_evaluation_mode(detector: nn.Module) -> None:
    """A validation loss has the one-to-one terms of the decoder."""
    with torch.no_grad():
        losses = detector.eval().loss(*toy_batch())
    assert 'one2many_loss_cls' not in losses
    assert 'enc_loss_cls' not in losses
    assert all(value > 0 for value in losses.values())


def test_second_group_changes_nothing_of_the_first(
    detector: nn.Module,
) -> None:
    """Queries of the first group do not see the second."""
    batch, samples = toy_batch(((128, 128),), (3,))
    with torch.no_grad():
        alone, _ = detector.eval()._forward(batch, samples)
        both, _ = detector.train()._forward(batch, samples)
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


def test_small_input_uses_the_proposals_there_are() -> None:
    model = build_model(toy_config(num_queries=100))
    batch, samples = toy_batch(((32, 64),), (2,))
    losses = model.train().loss(batch, samples)
    assert all(value.isfinite() for value in losses.values())
    # Another rank with a larger input has these losses, so this one has, too.
    second_group = [v for name, v in losses.items() if 'one2many' in name]
    assert second_group == [0.0] * 6
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name
    with torch.no_grad():
        (found,) = model.eval().predict(batch, samples)
    assert len(found.pred_instances) == 100


def test_any_number_of_classes() -> None:
    config = toy_config()
    config.bbox_head.num_classes = 1
    config.test_cfg.max_per_img = 12
    model = build_model(config)
    losses = model.train().loss(*toy_batch(num_classes=1))
    assert all(value.isfinite() for value in losses.values())
    with torch.no_grad():
        found = model.eval().predict(*toy_batch(num_classes=1))
    assert all((s.pred_instances.labels == 0).all() for s in found)


def test_a_copy_is_independent(detector: nn.Module) -> None:
    """As the hook for averaged weights makes one."""
    twin = copy.deepcopy(detector).eval()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        original, _ = detector.eval()._forward(*toy_batch())
        zeroed, _ = twin._forward(*toy_batch())
    assert original.abs().sum() > 0
    assert zeroed.abs().sum() == 0


def test_recomputed_layers_keep_names_and_losses() -> None:
    plain = build_model(toy_config())
    config = toy_config()
    config.encoder.num_cp = 2
    config.decoder.num_cp = 1
    recomputed = build_model(config)
    assert list(plain.state_dict()) == list(recomputed.state_dict())
    expected = plain.train().loss(*toy_batch())
    losses = recomputed.train().loss(*toy_batch())
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])
    sum(losses.values()).backward()
    sum(expected.values()).backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(
            recomputed.get_parameter(name).grad,
            parameter.grad,
            rtol=1e-4,
            atol=1e-6,
        )


def test_autocast() -> None:
    model = build_model(toy_config()).train()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(*toy_batch())
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())


class TensorMode(nn.Module):
    """A detector as export takes it: one tensor in, tensors out."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: torch.Tensor) -> tuple:
        return self.detector(batch, mode='tensor')


@torch.no_grad()
def test_export(detector: nn.Module) -> None:
    """The graph computes the same, and the detector goes on as before."""
    model = TensorMode(detector.eval())
    batch, _ = toy_batch()
    exported = torch.export.export(model, (batch,), strict=False).module()
    for ours, theirs in zip(exported(batch), model(batch), strict=True):
        assert type(theirs) is torch.Tensor
        torch.testing.assert_close(ours, theirs)


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
        (dict(one2many=dict(copies=6)), "unknown key 'copies'"),
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
