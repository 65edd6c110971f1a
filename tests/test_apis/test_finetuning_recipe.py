"""The config that a fine-tuning writes, under several methods."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import VISBACKENDS

import project.apis.finetuning.preparation as preparation
import project.apis.finetuning.recipe as recipe_module
from project.apis.finetuning.folder import DataFolder, read_folder
from project.apis.finetuning.models import find_model
from project.apis.finetuning.preparation import Request, prepare
from project.apis.finetuning.recipe import (
    TRACKERS,
    Options,
    choose,
    config_text,
    reasons,
)
from project.datasets.shapes_scene import SHAPE_CLASSES
from project.preflight.config import check_config
from project.utils.errors import UserError
from tests.helpers.data_formats import as_yolo
from tests.helpers.training import TOY_CONFIG, toy_data

__all__ = ['toy_data']

pytestmark = pytest.mark.usefixtures('mmdet_scope')
LR, IMAGES = 2e-4, 16


def config_of(
    num_images: int, start: Path | None = None, **options: Any
) -> Any:
    """The recipe for so many images under a config of 16 images a step."""
    data = DataFolder('COCO', {}, ('a', 'b'), num_images, False)
    cfg = Config(
        dict(
            optim_wrapper=dict(optimizer=dict(lr=LR)),
            train_dataloader=dict(batch_size=2),
            auto_scale_lr=dict(base_batch_size=IMAGES),
        )
    )
    chosen = Options(**options)
    return choose(Path('a.py'), cfg, Path('.'), data, chosen, start)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(), (8, 16, LR)),
        (dict(gpus=8), (1, 16, LR)),
        (dict(batch_size=1), (16, 16, LR)),
        (dict(batch_size=6), (3, 18, 2.25e-4)),
        (dict(batch_size=32), (1, 32, 4e-4)),
    ],
)
def test_a_step_is_the_published_one(options, expected) -> None:
    recipe = config_of(1000, **options)
    assert (recipe.accumulated, recipe.step, recipe.lr) == expected


def test_a_step_is_no_longer_than_an_epoch() -> None:
    recipe = config_of(5)
    assert (recipe.accumulated, recipe.lr) == (3, 7.5e-5)


def test_epochs_follow_the_images() -> None:
    start = Path('start.pth')
    epochs = [config_of(n, start=start).epochs for n in (9, 1000, 100_000)]
    assert epochs == [100, 50, 12]
    assert config_of(1000).epochs == 150
    assert config_of(1000, epochs=7).epochs == 7


def test_the_schedule_fits_into_the_training() -> None:
    for images, epochs, milestone in (
        (2, 1, 1), (2, 2, 1), (1000, 12, 11), (1000, 100, 92),
    ):  # fmt: skip
        recipe = config_of(images, epochs=epochs)
        assert 2 <= recipe.warm_up <= 1000
        assert recipe.milestone == milestone
        assert recipe.patience >= 10


@pytest.mark.parametrize(
    'name',
    ['rank-detr_r50', 'hpr-dino_r50', 'hpr-ddq_r50', 'deta_r50'],
)
def test_methods(toy_data, tmp_path, name) -> None:
    base = find_model(name)
    data = read_folder(toy_data, tmp_path)
    options = Options(epochs=6, image_size=400)
    original = Config.fromfile(base)
    recipe = choose(base, original, toy_data, data, options)
    path = tmp_path / 'finetune.py'
    path.write_text(config_text(recipe))
    cfg = Config.fromfile(path)
    assert check_config(cfg) == []
    assert cfg.train_cfg.max_epochs == 6
    assert 'max_iters' not in cfg.train_cfg
    assert cfg.model.bbox_head.num_classes == len(SHAPE_CLASSES)
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert Path(dataset.data_root, dataset.ann_file).is_file()
        assert Path(dataset.data_root, dataset.data_prefix.img).is_dir()
        assert tuple(dataset.metainfo.classes) == SHAPE_CLASSES
    assert Path(cfg.val_evaluator.ann_file).is_file()
    assert cfg.val_evaluator.classwise
    assert cfg.default_hooks.checkpoint.by_epoch
    (hook,) = cfg.custom_hooks
    assert hook.min_delta == 0.001
    # Halved everywhere: 800, and 480 to 800 in training.
    assert scales_of(cfg, 'test') == [(666, 400)]
    halved = [
        (round(a / 2), round(b / 2)) for a, b in scales_of(original, 'train')
    ]
    assert scales_of(cfg, 'train') == halved
    assert (240, 666) in halved
    again = Config(cfg.to_dict())
    assert again.train_dataloader == cfg.train_dataloader
    cfg.image_size = 800
    assert min(scales_of(cfg, 'test')[0]) == 800


def test_each_flag_is_a_setting(toy_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recipe_module, 'find_spec', lambda name: object())
    data = read_folder(toy_data, tmp_path)
    base, path = TOY_CONFIG, tmp_path / 'finetune.py'
    original = Config.fromfile(base)

    def written(**options: Any) -> tuple[Config, str]:
        chosen = Options(epochs=2, **options)
        recipe = choose(base, original, toy_data, data, chosen)
        path.write_text(config_text(recipe))
        cfg = Config.fromfile(path)
        assert check_config(cfg) == []
        return cfg, '\n'.join(reasons(recipe))

    cfg, told = written()
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert [hook.type for hook in cfg.custom_hooks] == ['EarlyStoppingHook']
    assert len(cfg.visualizer.vis_backends) == 1
    assert 'EMA' not in told
    for amp, dtype in (('fp16', 'float16'), ('bf16', 'bfloat16')):
        cfg, told = written(amp=amp)
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
        assert cfg.optim_wrapper.dtype == dtype
        assert f'Mixed precision in {amp}.' in told
    cfg, told = written(ema=True, workers=3)
    ema = cfg.custom_hooks[-1]
    assert (ema.type, ema.ema_type) == ('EMAHook', 'ExpMomentumEMA')
    for split in ('train', 'val', 'test'):
        assert cfg[f'{split}_dataloader'].num_workers == 3
    assert 'EMA of the weights, 3 workers' in told
    for tracker in TRACKERS:
        cfg, told = written(tracker=tracker)
        local, other = cfg.visualizer.vis_backends
        assert local.type == 'LocalVisBackend'
        assert other.type.lower() == f'{tracker}visbackend'
        VISBACKENDS.build(dict(other, save_dir=str(tmp_path)))
        assert tracker in told


def test_a_tracker_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setattr(recipe_module, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install wandb'):
        config_of(9, tracker='wandb')


def scales_of(cfg: Config, split: str) -> list[tuple[int, int]]:
    """All sizes of the pipeline of a split."""

    def found(node: Any) -> list:
        if isinstance(node, dict):
            own = [tuple(node['scale'])] if 'scale' in node else []
            own += [tuple(scale) for scale in node.get('scales', ())]
            return own + found(list(node.values()))
        if isinstance(node, list | tuple):
            return [scale for child in node for scale in found(child)]
        return []

    return found(cfg[f'{split}_dataloader'].dataset.pipeline)


@pytest.mark.parametrize('size', [0, 31, 'big', 1.5])
def test_what_is_no_image_size(size) -> None:
    cfg = Config.fromfile(TOY_CONFIG)
    with pytest.raises(UserError, match='image_size is'):
        cfg.image_size = size


def test_lines_tell_what_changes() -> None:
    lines = '\n'.join(reasons(config_of(1000, epochs=12, image_size=640)))
    for words in ('2 classes', '0.0002 for 16', '12 epochs (chosen)', '640'):
        assert words in lines


def test_the_line_on_epochs_agrees_with_their_number() -> None:
    """300 are not within 12 to 100 unless it says that they are tripled."""
    lines = '\n'.join(reasons(config_of(100)))
    assert '300 epochs (for 50,000 images, 12 to 100; 3 times as many' in lines


def test_no_more_detections_than_queries_give(toy_data, tmp_path) -> None:
    """As for one class and the toy detector's 10 queries."""
    data = replace(read_folder(toy_data, tmp_path), classes=('thing',))
    cfg = Config.fromfile(TOY_CONFIG)
    assert cfg.model.test_cfg.max_per_img == 20
    recipe = choose(TOY_CONFIG, cfg, toy_data, data, Options())
    assert '10 detections per image' in '\n'.join(reasons(recipe))
    assert '1 class, ' in reasons(recipe)[0]
    path = tmp_path / 'finetune.py'
    path.write_text(config_text(recipe))
    cfg = Config.fromfile(path)
    assert cfg.model.test_cfg.max_per_img == 10
    assert check_config(cfg) == []


@pytest.mark.parametrize(
    ('name', 'stem'),
    [
        ('rank-detr_r50', 'rank-detr_r50_8xb2-12e_coco'),
        ('h-detr', 'h-detr_r50_8xb2-12e_coco'),
        ('deta_r50', 'deta_r50_5scale_8xb2-12e_coco'),
        ('anchor-detr_r50', 'anchor-detr_r50_8xb2-50e_coco'),
        ('hpr-ddq_r50', 'hpr-ddq_r50_8xb2-88k_coco'),
        ('h-detr_r50_8xb2-36e_coco.py', 'h-detr_r50_8xb2-36e_coco'),
    ],
)
def test_names_of_models(name, stem) -> None:
    assert find_model(name).stem == stem


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('rank-dert_r50', 'did you mean rank-detr_r50'),
        ('yolo', 'there are align-detr_r50'),
        ('hpr-ddq_r50_lsj', 'trains with masks'),
    ],
)
def test_names_that_are_none(name, words) -> None:
    with pytest.raises(UserError, match=words):
        find_model(name)


def request_of(data: Path, **options: Any) -> Request:
    return Request(str(data), str(TOY_CONFIG), epochs=2, **options)


def test_a_training_goes_on_by_the_same_request(toy_data, tmp_path) -> None:
    request = request_of(toy_data)
    assert any('7 classes' in line for line in prepare(request, tmp_path))
    config = tmp_path / 'finetune.py'
    text = config.read_text()
    other = replace(request, epochs=3)
    prepare(other, tmp_path)  # nothing is lost yet
    assert config.read_text() != text
    prepare(request, tmp_path)
    assert config.read_text() == text
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    assert 'Goes on' in prepare(request, tmp_path)[0]
    with pytest.raises(UserError, match='epochs 2, not 3'):
        prepare(other, tmp_path)
    with pytest.raises(UserError, match="amp None, not 'bf16'"):
        prepare(replace(request, amp='bf16'), tmp_path)
    # As a version without some of the options has left it.
    state = json.loads((tmp_path / 'finetune.json').read_text())
    del state['request']['ema'], state['request']['amp']
    (tmp_path / 'finetune.json').write_text(json.dumps(state))
    assert 'Goes on' in prepare(request, tmp_path)[0]
    assert config.read_text() == text


def test_a_config_changed_by_hand_is_kept(toy_data, tmp_path) -> None:
    prepare(request_of(toy_data), tmp_path)
    config = tmp_path / 'finetune.py'
    config.write_text(config.read_text() + 'mine = 1\n')
    for _ in range(2):
        assert 'by hand' in prepare(request_of(toy_data), tmp_path)[0]
        assert config.read_text().endswith('mine = 1\n')


@pytest.mark.parametrize(
    ('function', 'calls'),
    [
        ('read_folder', 1),
        ('choose', 1),
        ('config_text', 1),
        ('write_text', 1),
        ('write_text', 2),
        ('write_text', 3),
        ('_convert', 1),
    ],
)
@pytest.mark.parametrize('is_second', [False, True])
def test_killed_while_it_prepares(
    toy_data, tmp_path, monkeypatch, function, calls, is_second
) -> None:
    """After any step: what is there is of a fine-tuning, and not by hand."""
    data, work_dir = tmp_path / 'yolo', tmp_path / 'work'
    as_yolo(toy_data, data)
    checkpoint = tmp_path / 'trained.pth'
    model = MODELS.build(Config.fromfile(TOY_CONFIG).model)
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    request = request_of(data, checkpoint=str(checkpoint))
    expected = prepare(request, tmp_path / 'undisturbed')
    work_dir.mkdir()
    if is_second:
        prepare(replace(request, epochs=3), work_dir)

    original, left = getattr(preparation, function), [calls]

    def last(*args: Any) -> Any:
        result = original(*args)
        left[0] -= 1
        if not left[0]:
            os._exit(9)  # without tidying up
        return result

    with monkeypatch.context() as patch:
        patch.setattr(preparation, function, last)
        process = os.fork()
        if not process:
            try:
                prepare(request, work_dir)
            finally:
                os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status == 9
    assert prepare(request, work_dir) == expected
    assert Config.fromfile(work_dir / 'finetune.py').max_epochs == 2
    assert (work_dir / 'annotations/train.json').is_file()


def test_an_epoch_without_its_marker_has_begun(toy_data, tmp_path) -> None:
    """Killed between the two, a training goes on, too."""
    prepare(request_of(toy_data), tmp_path)
    (tmp_path / 'epoch_1.pth').touch()
    assert 'Goes on' in prepare(request_of(toy_data), tmp_path)[0]


def test_a_folder_of_another_training(toy_data, tmp_path) -> None:
    (tmp_path / 'last_checkpoint').write_text('epoch_1.pth')
    with pytest.raises(UserError, match='of another kind'):
        prepare(request_of(toy_data), tmp_path)


def test_a_checkpoint_of_other_classes(toy_data, tmp_path) -> None:
    data = shutil.copytree(toy_data, tmp_path / 'mine')
    for split in ('train', 'val'):
        file = data / 'annotations' / f'{split}.json'
        content = json.loads(file.read_text())
        content['categories'] = content['categories'][:3]
        file.write_text(json.dumps(content))
    trained = MODELS.build(Config.fromfile(TOY_CONFIG).model).state_dict()
    checkpoint = tmp_path / 'trained.pth'
    torch.save(dict(state_dict=trained), checkpoint)
    for root, num_classes, told in (
        (toy_data, 7, 'the classifiers too, as it has 7 classes.'),
        (
            data,
            3,
            'which count its 7 classes, are new.',
        ),
    ):
        work_dir = tmp_path / f'work_{num_classes}'
        request = request_of(root, checkpoint=str(checkpoint))
        lines = prepare(request, work_dir)
        assert any('start.pth' in line for line in lines)
        assert told in lines[-1]
        cfg = Config.fromfile(work_dir / 'finetune.py')
        weights = torch.load(cfg.load_from)['state_dict']
        MODELS.build(cfg.model).load_state_dict(weights)
        name = 'bbox_head.cls_branches.0.bias'
        assert len(weights[name]) == num_classes
        name = 'backbone.conv1.weight'
        assert torch.equal(weights[name], trained[name])


def test_a_checkpoint_of_another_model(toy_data, tmp_path) -> None:
    """It is named before a training starts, the classes being the same."""
    model = Config.fromfile(TOY_CONFIG).model
    model.decoder.num_layers = 3
    checkpoint = tmp_path / 'trained.pth'
    torch.save(dict(state_dict=MODELS.build(model).state_dict()), checkpoint)
    request = request_of(toy_data, checkpoint=str(checkpoint))
    with pytest.raises(UserError, match=r'trained\.pth: .* does not fit'):
        prepare(request, tmp_path / 'work')


def test_nothing_of_the_user_is_overwritten(toy_data, tmp_path) -> None:
    data = tmp_path / 'mine'
    as_yolo(toy_data, data)
    mine = data / 'annotations' / 'train.json'
    mine.parent.mkdir()
    mine.write_text('mine')
    with pytest.raises(UserError, match='mine has annotations, which is not'):
        prepare(request_of(data), data)
    assert mine.read_text() == 'mine'
    # What a failed attempt has written is not in the way of the next one.
    work_dir = tmp_path / 'work'
    image = next((data / 'images/val').iterdir())
    pixels = image.read_bytes()
    image.write_bytes(b'')
    mine.unlink()
    with pytest.raises(UserError, match='cannot be read'):
        prepare(request_of(data), work_dir)
    image.write_bytes(pixels)
    prepare(request_of(data), work_dir)
    assert (work_dir / 'annotations/val.json').is_file()
