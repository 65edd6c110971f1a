import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

import project  # noqa: F401
from project.models.task_modules.set_prediction import MatchedPairs
from project.utils.errors import UserError
from tests.helpers.golden_runs import recorded_matches
from tests.helpers.toy import (
    build_model,
    check_detections,
    check_training_step,
    tiny_model_config,
    toy_batch,
    toy_model_config,
)

R50 = 'deta/deta_r50_5scale_8xb2-12e_coco.py'
BASELINE = 'deta/deta_r50_improved-baseline_8xb2-50e_coco.py'


def toy_config(name: str = R50, **changes) -> ConfigDict:
    return tiny_model_config(name, **changes)


@pytest.fixture(scope='module')
def detector() -> nn.Module:
    return build_model(toy_config())


def test_boxes_without_area(detector: nn.Module) -> None:
    """What a crop may leave of a box, if a pipeline does not drop it."""
    batch, samples = toy_batch(num_gts=(3, 2))
    for sample in samples:
        sample.gt_instances.bboxes[0, 2:] = sample.gt_instances.bboxes[0, :2]
    samples[1].gt_instances.bboxes[1, 2] = samples[1].gt_instances.bboxes[1, 0]
    check_training_step(detector, batch, samples)


@pytest.mark.parametrize('name', [R50, BASELINE])
@pytest.mark.parametrize('size', [(32, 64), (1, 1), (8, 300)])
def test_fewer_points_than_queries(name: str, size: tuple[int, int]) -> None:
    """All are used; of a level always fewer than 1000 are looked at."""
    model = build_model(toy_config(name, num_queries=100))
    for num_gts in ((2,), (0,)):
        batch, samples = toy_batch((size,), num_gts)
        check_training_step(model, batch, samples)
    check_detections(model, batch, samples)
    queries = []
    hook = model.decoder.register_forward_pre_hook(
        lambda _, args: queries.append(args[0].shape[1])
    )
    with torch.no_grad():
        model.eval().predict(batch, samples)
    hook.remove()
    assert 0 < queries[0] < 100


def pairs_of(model: nn.Module, *args) -> dict[str, MatchedPairs]:
    with recorded_matches() as matches:
        model.train().loss(*args)
    return {prefix: pairs for prefix, (_, pairs) in matches.items()}


def test_all_layers_learn_the_same_pairs(detector: nn.Module) -> None:
    """Assigned once, by what the decoder began with."""
    pairs = pairs_of(detector, *toy_batch())['']
    num_pairs = len(pairs) // 2
    assert num_pairs
    for name in ('image', 'query', 'target'):
        first, second = getattr(pairs, name).split(num_pairs)
        assert first.equal(second)


def test_a_stage_may_be_matched_instead() -> None:
    """Assignment of either stage is a switch of its own."""
    batch, samples = toy_batch()
    both = pairs_of(build_model(toy_config()), batch, samples)
    for stage, prefix in (('first', 'enc_'), ('second', '')):
        config = toy_config()
        config.train_cfg[f'{stage}_stage_assigner'] = None
        pairs = pairs_of(build_model(config), batch, samples)
        matched = pairs.pop(prefix)
        for layer in range(len(matched.counts)):
            targets = matched.target[matched.layer == layer]
            assert sorted(targets.tolist()) == [0, 1, 2, 3, 4]
        ((key, assigned),) = pairs.items()
        assert assigned.target.equal(both[key].target)
        assert assigned.query.equal(both[key].query)


def test_evaluation_chooses_as_training_does(detector: nn.Module) -> None:
    """Though it computes the boxes of only some points."""
    batch, samples = toy_batch()
    with torch.no_grad():
        training, _ = detector.train()(batch, samples, mode='tensor')
        evaluation, _ = detector.eval()(batch, samples, mode='tensor')
    torch.testing.assert_close(evaluation, training, rtol=1e-4, atol=1e-4)


def test_contents_take_no_gradient_to_the_first_stage(
    detector: nn.Module,
) -> None:
    """Proposals and their memory are cut off; the encoder is not."""
    detector.train().zero_grad()
    losses = detector.loss(*toy_batch())
    decoder = [v for name, v in losses.items() if 'enc_' not in name]
    sum(decoder).backward()
    for name, parameter in detector.named_parameters():
        has_gradient = parameter.grad is not None and parameter.grad.any()
        if name.startswith(('memory_trans_', 'bbox_head.cls_branches.2')):
            assert not has_gradient, name
        if name.startswith(('pix_trans_', 'encoder.layers.1.ffn')):
            assert has_gradient, name


def test_initial_weights() -> None:
    model = build_model(toy_config(), seed=1)
    bound = (6 / (256 + 256)) ** 0.5  # of Xavier's uniform distribution
    weight = model.pix_trans_fc.weight
    assert weight.shape == (256, 256)
    assert 0.95 * bound < weight.abs().max() <= bound
    assert model.pix_trans_fc.bias.any()
    first, *others = (b.state_dict() for b in model.bbox_head.cls_branches)
    assert len(others) == 2
    for other in others:
        assert all(first[key].equal(other[key]) for key in first)


def test_it_needs_a_first_stage() -> None:
    with pytest.raises(UserError, match='DETA needs as_two_stage=True'):
        build_model(toy_config(as_two_stage=False))


def test_a_selector_selects() -> None:
    selector = dict(type='CappedRandomSampler')
    with pytest.raises(UserError, match="'CappedRandomSampler' selects no"):
        build_model(toy_config(proposal_selector=selector))


def test_the_selector_serves_another_detector() -> None:
    """H-DETR, whose second group takes the next best, by config alone."""
    config = toy_model_config('h_detr/h-detr_r50_8xb2-12e_coco.py')
    config.proposal_selector = dict(type='LevelNMSSelector')
    model = build_model(config)
    batch, samples = toy_batch()
    losses = model.train().loss(batch, samples)
    assert all(value.isfinite() for value in losses.values())
    check_detections(model, batch, samples)
