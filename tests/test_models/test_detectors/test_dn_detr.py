import math
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.runner import load_checkpoint
from torch import Tensor, nn

import project  # noqa: F401
from project.checkpoints.class_tensors import COCO_IDS
from project.checkpoints.conversion import convert_state_dict
from project.checkpoints.start_checks import check_checkpoint
from project.models.layers.dn_query_generator import DenoisingNoise, DNGroups
from project.utils.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.goldens import Golden
from tests.helpers.toy import (
    build_model,
    check_training_step,
    tiny_model_config,
    toy_batch,
)

CONFIGS = {
    'dense': 'dn-detr_r50_8xb2-50e_coco.py',
    'dense-detrex': 'dn-detr_r50_8xb2-50e_coco-detrex.py',
    'deformable': 'dn-deformable-detr_r50_8xb2-50e_coco.py',
    'deformable-detrex': 'dn-deformable-detr_r50_8xb2-50e_coco-detrex.py',
    'encoder': 'dn-deformable-encoder-detr_r50_3pat_16xb1-50e_coco.py',
}
LABELS = 'dn_query_generator.label_embedding.weight'


def toy_config(form: str, **changes) -> ConfigDict:
    return tiny_model_config(f'dn_detr/{CONFIGS[form]}', **changes)


@pytest.fixture(scope='module', params=CONFIGS)
def detector(request: pytest.FixtureRequest) -> nn.Module:
    return build_model(toy_config(request.param))


def test_matched_queries_do_not_notice_the_others(detector: nn.Module) -> None:
    """In training they give what they give in evaluation."""
    batch, samples = toy_batch(((64, 64), (64, 64)), (3, 1))
    with torch.no_grad():
        alone = detector.eval()(batch, samples, mode='tensor')
        both = detector.train()(batch, samples, mode='tensor')
    for expected, found in zip(alone, both, strict=True):
        matched = found[:, :, -expected.shape[2] :]
        assert found.shape[2] == expected.shape[2] + 15
        torch.testing.assert_close(matched, expected, rtol=1e-4, atol=1e-4)


def test_groups_do_not_notice_each_other(detector: nn.Module) -> None:
    batch, samples = toy_batch(((64, 64),), (3,))
    noise = detector.dn_query_generator.draw_noise(15, torch.device('cpu'))
    outputs = []
    for shift in (0.0, 0.3):
        box_rand = noise.box_rand.clone()
        box_rand[3:6] = (box_rand[3:6] + shift) % 1  # of the second group
        moved = DenoisingNoise(noise.label_rand, noise.labels, box_rand)
        detector.dn_query_generator.draw_noise = lambda *_, m=moved: m
        with torch.no_grad():
            outputs.append(detector.train()(batch, samples, mode='tensor')[1])
    del detector.dn_query_generator.draw_noise
    change = (outputs[0] - outputs[1]).abs().amax((0, 1, 3))
    assert (change[3:6] > 1e-3).all()
    assert change[:3].max() < 1e-5
    assert change[6:].max() < 1e-5


def test_detects_as_many_as_asked(detector: nn.Module) -> None:
    batch, samples = toy_batch()
    with torch.no_grad():
        found = detector.eval().predict(batch, samples)
    for sample in found:
        wanted = detector.test_cfg.max_per_img
        assert len(sample.pred_instances) == wanted


def test_denoising_can_be_switched_off(detector: nn.Module) -> None:
    """The baseline of a comparison: the losses are there and 0."""
    generator = detector.dn_query_generator
    with mock.patch.object(generator, 'groups', DNGroups(num_groups=0)):
        losses = check_training_step(detector, *toy_batch())
    assert all(value == 0 for name, value in losses.items() if 'dn_' in name)


@pytest.mark.parametrize('form', CONFIGS)
def test_the_class_count_reaches_the_label_table(form: str) -> None:
    config = toy_config(form)
    config.bbox_head.num_classes = 7
    config.test_cfg.max_per_img = 80
    model = build_model(config)
    assert model.state_dict()[LABELS].shape == (8, 255)
    losses = model.loss(*toy_batch(num_classes=7))
    assert all(value.isfinite() for value in losses.values())


@pytest.mark.parametrize('form', ['dense', 'deformable', 'encoder'])
def test_labels_of_other_classes_are_refused(
    form: str, tmp_path: Path
) -> None:
    """By the check of the tools, and by the detector itself."""
    path = tmp_path / '80.pth'
    old = build_model(toy_config(form)).state_dict()
    torch.save(dict(state_dict=old), path)
    config = toy_config(form)
    config.bbox_head.num_classes = 7
    config.test_cfg.max_per_img = 80
    model = build_model(config, seed=1)
    with pytest.raises(UserError, match='80 classes and the model has 7'):
        check_checkpoint(str(path), model, fine_tuning=True)
    with pytest.raises(UserError, match=r'80 classes and this \w+ 7: set'):
        load_checkpoint(model, str(path), strict=False, map_location='cpu')


def is_xavier(weight: Tensor) -> bool:
    """Whether a matrix is of Xavier's uniform distribution."""
    bound = math.sqrt(6 / sum(weight.shape))
    return 0.9 * bound < weight.abs().max().item() <= bound


def is_normal(weight: Tensor) -> bool:
    return 0.8 < weight.std() < 1.2 and weight.mean().abs() < 0.2


def has_prior(bias: Tensor) -> bool:
    return bool(((bias + math.log(99)).abs() < 1e-5).all())


def test_initial_weights_of_the_dense_form() -> None:
    model = build_model(toy_config('dense', num_queries=300, num_patterns=3))
    weights = model.state_dict()
    for name, weight in weights.items():
        if name.startswith(('encoder.', 'decoder.')) and weight.dim() > 1:
            assert is_xavier(weight), name
    assert weights['encoder.layers.1.ffn.layers.0.1.weight'] == 0.25
    assert (weights['decoder.layers.0.cross_attn.out_proj.bias'] == 0).all()
    assert weights['decoder.layers.0.cross_attn.v_proj.bias'].abs().min() > 0
    for name in ('query_embedding.weight', 'patterns.weight', LABELS):
        assert is_normal(weights[name]), name
    assert has_prior(weights['bbox_head.fc_cls.bias'])
    assert weights['bbox_head.fc_cls.weight'].abs().max() <= 1 / 16
    for leaf in ('weight', 'bias'):
        assert (weights[f'bbox_head.fc_reg.layers.2.{leaf}'] == 0).all()
        neck = weights[f'neck.convs.0.conv.{leaf}'].abs().max().item()
        bound = 1 / math.sqrt(128)  # of the toy's last stage
        assert 0.97 * bound < neck <= bound


@pytest.mark.parametrize('form', ['deformable', 'deformable-detrex'])
def test_initial_weights_of_the_deformable_form(form: str) -> None:
    model = build_model(toy_config(form, num_queries=300))
    weights = model.state_dict()
    for coder in ('encoder.layers.1.self_attn', 'decoder.layers.0.cross_attn'):
        for part in ('sampling_offsets', 'attention_weights'):
            assert (weights[f'{coder}.{part}.weight'] == 0).all()
        grid = weights[f'{coder}.sampling_offsets.bias'].view(8, 4, 4, 2)
        lengths = grid.abs().amax(-1)
        expected = torch.arange(1.0, 5).expand(8, 4, 4)
        torch.testing.assert_close(lengths, expected)
        assert is_xavier(weights[f'{coder}.value_proj.weight'])
        assert (weights[f'{coder}.output_proj.bias'] == 0).all()
    assert is_xavier(weights['decoder.query_scale.layers.0.weight'])
    assert is_normal(weights['level_embed'])
    assert is_normal(weights[LABELS])
    anchors, contents = (
        weights[f'{name}.weight'] for name in ('refpoint_embed', 'tgt_embed')
    )
    if form == 'deformable':
        assert is_normal(anchors)
        assert is_normal(contents)
    else:
        assert (contents == 0).all()
        assert anchors.abs().max() == 3
        histogram = torch.histc(anchors.sigmoid(), 4, 0, 1)
        assert (histogram > 240).all()
    for layer in range(2):
        box_head = f'bbox_head.reg_branches.{layer}.4'
        assert (weights[f'{box_head}.weight'] == 0).all()
        expected = [0, 0, -2, -2] if layer == 0 else [0] * 4
        assert weights[f'{box_head}.bias'].tolist() == expected
        assert has_prior(weights[f'bbox_head.cls_branches.{layer}.bias'])
    assert (weights['neck.convs.0.conv.bias'] == 0).all()


def test_initial_weights_with_a_deformable_encoder() -> None:
    weights = build_model(toy_config('encoder', num_queries=300)).state_dict()
    attention = 'encoder.layers.0.self_attn'
    for part in ('sampling_offsets', 'attention_weights', 'value_proj'):
        assert is_xavier(weights[f'{attention}.{part}.weight'])
    assert (weights[f'{attention}.value_proj.bias'] == 0).all()
    assert weights[f'{attention}.sampling_offsets.bias'].abs().max() == 4
    assert is_xavier(weights['patterns.weight'])
    assert is_normal(weights['level_embed'])
    assert is_normal(weights['query_embedding.weight'])
    assert (weights['bbox_head.fc_reg.layers.2.weight'] != 0).all()
    assert has_prior(weights['bbox_head.fc_cls.bias'])
    assert weights['neck.convs.0.conv.bias'].abs().min() > 0


def test_detrex_looks_at_padding() -> None:
    """Its decoder does; padding of other values changes what it detects."""
    batch, samples = toy_batch(((64, 64), (96, 96)))
    for form, notices in (('dense', False), ('dense-detrex', True)):
        model = build_model(toy_config(form)).eval()
        outputs = []
        for padding in (0.0, 5.0):
            memory, decoder_inputs = encoded(model, batch, samples)
            mask = decoder_inputs['memory_mask'][..., None]
            queries, head_inputs = model.pre_decoder(
                memory.masked_fill(mask, padding)
            )
            head_inputs.update(
                model.forward_decoder(**decoder_inputs, **queries)
            )
            outputs.append(model.bbox_head(**head_inputs)[0][:, 0])
        assert torch.equal(*outputs) != notices


@torch.no_grad()
def encoded(
    model: nn.Module, batch: Tensor, samples: list
) -> tuple[Tensor, dict]:
    encoder_inputs, decoder_inputs = model.pre_transformer(
        model.extract_feat(batch), samples
    )
    return model.forward_encoder(**encoder_inputs)['memory'], decoder_inputs


@pytest.mark.parametrize('form', ['deformable', 'encoder'])
@pytest.mark.parametrize(
    'wrong', [dict(as_two_stage=True), dict(with_box_refine=False)]
)
def test_forms_that_do_not_exist(form: str, wrong: dict) -> None:
    with pytest.raises(UserError, match='needs as_two_stage=False and with'):
        build_model(toy_config(form, **wrong))


def test_anchors_that_cannot_be_spread() -> None:
    with pytest.raises(UserError, match='uniform_anchors=True is of DNDef'):
        build_model(toy_config('encoder', uniform_anchors=True))


@pytest.mark.parametrize(
    ('case', 'classifiers'),
    [
        ('dn_detr_r50_extreme_anchors', ['class_embed.bias']),
        (
            'dn_deformable_r50_oneempty',
            [f'class_embed.{i}.bias' for i in range(6)],
        ),
    ],
)
def test_80_classes_detect_what_91_category_ids_did(
    case: str, classifiers: list[str]
) -> None:
    """The authors' weights as they are, and as the tool converts them."""
    golden = Golden(ROOT / 'tests' / 'data' / 'goldens' / 'dn_detr' / case)
    weights = dict(golden.source_weights)
    unused = sorted(set(range(91)) - set(COCO_IDS))
    for name in classifiers:  # trained classifiers never name these
        weights[name] = weights[name].index_fill(
            0, torch.tensor(unused), -100.0
        )
    detections, label_rows = [], []
    for num_classes in (91, 80):
        converted = convert_state_dict(
            weights, num_classes=91 if num_classes == 91 else None
        )
        config = golden.system.build_config(golden.meta)
        config.bbox_head.num_classes = num_classes
        model = build_model(config).double().eval()
        model.load_state_dict(converted.state_dict, strict=True)
        label_rows.append(model.dn_query_generator.label_embedding.weight)
        with torch.no_grad():
            samples = golden.samples([0])
            for sample in samples:
                shape = sample.img_shape
                sample.set_metainfo(
                    dict(ori_shape=shape, scale_factor=(1.0, 1.0))
                )
            (found,) = model.predict(golden.image([0]), samples)
        detections.append(found.pred_instances)
    by_id, by_class = detections
    ids = torch.tensor(COCO_IDS)
    assert torch.equal(ids[by_class.labels], by_id.labels)
    torch.testing.assert_close(by_class.scores, by_id.scores)
    torch.testing.assert_close(by_class.bboxes, by_id.bboxes)
    assert torch.equal(label_rows[1][:-1], label_rows[0][ids])
    assert torch.equal(label_rows[1][-1], label_rows[0][-1])


def test_unknown_settings_of_denoising_are_told() -> None:
    config = toy_config('dense')
    config.dn_cfg.label_noise = 0.2
    with pytest.raises(UserError, match="dn_cfg takes no 'label_noise': did"):
        build_model(config)
