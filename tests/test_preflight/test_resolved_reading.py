"""A config of this package is resolved by whichever door it comes in."""

import copy
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import mmdet
import pytest
import torch
from mmdet.apis import DetInferencer, init_detector
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import FlexibleRunner, Runner

import project  # noqa: F401  what is tested
from project.preflight.config_tree import leaf_datasets
from project.preflight.resolved_reading import is_ours, resolve_when_read
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS
from tests.helpers.training import TOY_CONFIG, tool_env

CLASSES = ('circle', 'square', 'star')
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
CUSTOM = CONFIGS / 'custom' / 'h-detr_r50_8xb2-12e_custom.py'


def write(folder: Path, text: str, name: str = 'my_config.py') -> Path:
    path = folder / name
    path.write_text(text)
    return path


def three_lines(folder: Path, base: Path = CUSTOM, root: str = 'mine/') -> str:
    return (
        f'_base_ = {str(base)!r}\n'
        f'data_root = {root!r}\n'
        f'classes = {CLASSES!r}\n'
    )


def roots(cfg: Config) -> set[str]:
    return {
        dataset.data_root
        for split in ('train', 'val', 'test')
        for _, dataset in leaf_datasets(cfg, split)
    }


def check_resolved(cfg: Config, root: str = 'mine/') -> None:
    assert roots(cfg) == {root}
    assert cfg.val_evaluator.ann_file.startswith(root)
    assert cfg.model.bbox_head.num_classes == len(CLASSES)
    for split in ('train', 'val', 'test'):
        for _, dataset in leaf_datasets(cfg, split):
            assert dataset.metainfo.classes == CLASSES


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return write(tmp_path, three_lines(tmp_path))


@pytest.mark.parametrize(
    'base', sorted((CONFIGS / 'custom').glob('*.py')), ids=lambda p: p.stem
)
def test_three_lines_are_resolved_as_they_are_read(
    base: Path, tmp_path: Path
) -> None:
    check_resolved(
        Config.fromfile(write(tmp_path, three_lines(tmp_path, base)))
    )


def test_a_shipped_base_is_found_by_name(tmp_path: Path) -> None:
    name = str(CUSTOM.relative_to(CONFIGS))
    text = three_lines(tmp_path).replace(str(CUSTOM), f'mmdetr::{name}')
    cfg = Config.fromfile(write(tmp_path, text))
    check_resolved(cfg)
    by_path = write(tmp_path, three_lines(tmp_path), 'by_path.py')
    assert cfg.to_dict() == Config.fromfile(by_path).to_dict()
    wrong = write(tmp_path, text.replace('12e', '13e'))
    with pytest.raises(UserError, match='did you mean'):
        Config.fromfile(wrong)


def test_what_is_made_from_it_stays_resolved(mine: Path) -> None:
    cfg = Config.fromfile(mine)
    text = cfg.pretty_text
    check_resolved(pickle.loads(pickle.dumps(cfg)))
    check_resolved(copy.deepcopy(cfg))
    check_resolved(cfg.copy())
    check_resolved(Config.fromstring(text, '.py'))
    check_resolved(Config(cfg.to_dict()))
    dumped = mine.with_name('dumped.py')
    cfg.dump(dumped)
    check_resolved(Config.fromfile(dumped))
    child = write(mine.parent, f'_base_ = {mine.name!r}', 'child.py')
    check_resolved(Config.fromfile(child))


def test_the_first_config_brings_the_package_along(mine: Path) -> None:
    """It is imported while the config is being read."""
    script = (
        'import sys; from mmengine.config import Config; '
        'cfg = Config.fromfile(sys.argv[1]); '
        'print(cfg.model.bbox_head.num_classes, '
        'cfg.train_dataloader.dataset.data_root, '
        "'mmdet.models' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, '-c', script, str(mine)],
        env=tool_env(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ['3', 'mine/', 'False']


def test_options_and_assignments_hold_at_once(mine: Path) -> None:
    cfg = Config.fromfile(CUSTOM)
    cfg.merge_from_dict(dict(data_root='mine/', classes=list(CLASSES)))
    check_resolved(cfg)
    cfg = Config.fromfile(CUSTOM)
    cfg.data_root = 'mine/'
    cfg['classes'] = CLASSES
    check_resolved(cfg)
    cfg.data_root = 'mine/deeper'
    cfg.data_root = 'mine/'
    check_resolved(cfg)


def test_an_option_at_its_own_place_has_the_last_word(mine: Path) -> None:
    cfg = Config.fromfile(mine)
    cfg.merge_from_dict(
        {'train_dataloader.dataset.data_root': 'mine/x', 'data_root': 'y'}
    )
    assert cfg.train_dataloader.dataset.data_root == 'mine/x'
    assert cfg.val_dataloader.dataset.data_root == 'y'
    assert cfg.val_evaluator.ann_file == 'y/annotations/val.json'


def test_roots_of_the_datasets_themselves_stay(tmp_path: Path) -> None:
    """As mmdet's documentation tells users to set them."""
    loaders = ''.join(
        f"{split}_dataloader = dict(dataset=dict(data_root='own/{split}'))\n"
        for split in ('train', 'val', 'test')
    )
    cfg = Config.fromfile(
        write(tmp_path, f'_base_ = {str(CUSTOM)!r}\n{loaders}')
    )
    own = {'own/train', 'own/val', 'own/test'}
    assert roots(cfg) == own
    cfg.dump(tmp_path / 'dumped.py')
    assert roots(Config.fromfile(tmp_path / 'dumped.py')) == own
    # One of them and the variable: it is what the rest follows.
    text = three_lines(tmp_path) + loaders.splitlines()[0]
    cfg = Config.fromfile(write(tmp_path, text))
    assert roots(cfg) == {'own/train', 'mine/'}


def test_data_root_through_several_files(mine: Path) -> None:
    child = write(
        mine.parent,
        f'_base_ = {mine.name!r}\nimport os.path as osp\n'
        "data_root = osp.join('mine', 'sub')",
        'child.py',
    )
    assert roots(Config.fromfile(child)) == {'mine/sub'}
    last = write(mine.parent, "_base_ = 'child.py'\nx = 1", 'last.py')
    assert roots(Config.fromfile(last)) == {'mine/sub'}


@pytest.mark.parametrize(
    'text', ['max_epochs = 24', 'max_epochs = 24\nwork_dir = "x"']
)
def test_max_epochs_of_a_child(tmp_path: Path, text: str) -> None:
    cfg = Config.fromfile(write(tmp_path, f'_base_ = {str(CUSTOM)!r}\n{text}'))
    assert cfg.train_cfg.max_epochs == 24
    assert cfg.param_scheduler[-1].end == 24


def test_max_epochs_as_an_option(mine: Path) -> None:
    cfg = Config.fromfile(mine)
    cfg.merge_from_dict(dict(max_epochs=1))
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == 1
    assert cfg.param_scheduler[-1].milestones == [11]
    cfg.merge_from_dict({'max_epochs': 3, 'train_cfg.max_epochs': 4})
    assert cfg.train_cfg.max_epochs == 4


def test_epochs_of_train_cfg_stay(tmp_path: Path) -> None:
    text = f'_base_ = {str(CUSTOM)!r}\ntrain_cfg = dict(max_epochs=5)'
    assert Config.fromfile(write(tmp_path, text)).train_cfg.max_epochs == 5


def test_max_epochs_of_a_training_that_counts_iterations() -> None:
    cfg = Config.fromfile(
        CONFIGS / 'rank_detr' / 'rank-detr_r50_8xb2-12e_coco.py'
    )
    with pytest.raises(UserError, match=r'set train_cfg\.max_iters|max_iter'):
        cfg.merge_from_dict(dict(max_epochs=1))


@pytest.mark.parametrize('classes', [(), 3.5, ('a', 'a'), (None,)])
def test_classes_that_are_none(tmp_path: Path, classes: Any) -> None:
    text = f'_base_ = {str(CUSTOM)!r}\nclasses = {classes!r}'
    with pytest.raises(UserError, match='classes'):
        Config.fromfile(write(tmp_path, text))


LAZY = """
from mmengine.config import read_base
from project.models.detectors import HDETR
from mmdet.datasets import CocoDataset
from project.engine import DETRRunner
runner_type = DETRRunner
data_root = 'mine/'
classes = ('circle', 'square', 'star')
model = dict(type=HDETR, bbox_head=dict(num_classes=80))
train_dataloader = dict(dataset=dict(type=CocoDataset, data_root='other'))
val_dataloader = train_dataloader
test_dataloader = train_dataloader
val_evaluator = dict(ann_file='other/a.json')
"""


def test_a_config_in_pythons_own_syntax(tmp_path: Path) -> None:
    cfg = Config.fromfile(write(tmp_path, LAZY))
    check_resolved(cfg)
    text = cfg.pretty_text
    check_resolved(Config.fromstring(text, '.py'))
    assert 'mmdet.datasets' in text


def test_without_custom_imports(tmp_path: Path) -> None:
    """The form of the configs of HPR's authors."""
    cfg = Config.fromfile(CUSTOM)
    cfg.pop('custom_imports')
    cfg.dump(tmp_path / 'base.py')
    text = three_lines(tmp_path, tmp_path / 'base.py')
    check_resolved(Config.fromfile(write(tmp_path, text)))


def test_imported_without_a_runner(tmp_path: Path) -> None:
    """README's "in your own config", which our tools give their runner."""
    cfg = Config.fromfile(CUSTOM)
    cfg.pop('runner_type')
    cfg.dump(tmp_path / 'base.py')
    text = three_lines(tmp_path, tmp_path / 'base.py')
    check_resolved(Config.fromfile(write(tmp_path, text)))


@pytest.mark.parametrize('runner', ['Runner', 'FlexibleRunner'])
def test_another_runner_reads_the_same(tmp_path: Path, runner: str) -> None:
    """It turns the checks off, and must not bring COCO's paths back."""
    text = f'{three_lines(tmp_path)}\nrunner_type = {runner!r}'
    cfg = Config.fromfile(write(tmp_path, text))
    check_resolved(cfg)
    cfg.merge_from_dict(dict(data_root='yours/'))
    check_resolved(cfg, 'yours/')


@pytest.mark.parametrize(
    'imports', ['project', ['mine', 'project.models'], ('project',)]
)
def test_what_counts_as_an_import(imports: Any) -> None:
    content = dict(custom_imports=dict(imports=imports), runner_type='Runner')
    assert is_ours(content)


@pytest.mark.parametrize('imports', [None, [], 'projects', ['my.project']])
def test_what_counts_as_none(imports: Any) -> None:
    assert not is_ours(dict(custom_imports=dict(imports=imports)))


@pytest.mark.parametrize('extra', ["runner_type = 'Runner'", ''])
def test_other_configs_do_not_change(tmp_path: Path, extra: str) -> None:
    base = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
    text = f'_base_ = {base!r}\n{extra}\n'
    before = Config.fromfile(write(tmp_path, text)).to_dict()
    values = dict(data_root='mine/', classes=list(CLASSES), max_epochs=1)
    cfg = Config.fromfile(write(tmp_path, text))
    cfg.merge_from_dict(values)
    assert cfg.to_dict() == {**before, **values}
    cfg = Config.fromfile(write(tmp_path, text))
    for key, value in values.items():
        setattr(cfg, key, value)
    assert cfg.to_dict() == {**before, **values}
    lines = '\n'.join(f'{key} = {value!r}' for key, value in values.items())
    cfg = Config.fromfile(write(tmp_path, f'{text}\n{lines}'))
    assert cfg.to_dict() == {**before, **values}


def test_a_dict_that_is_given_is_not_changed(mine: Path) -> None:
    content = ConfigDict(Config.fromfile(CUSTOM).to_dict())
    content.classes = CLASSES
    before = copy.deepcopy(content)
    assert Config(content).model.bbox_head.num_classes == len(CLASSES)
    assert content == before


def test_wrapping_twice_is_wrapping_once() -> None:
    before = Config.__init__
    resolve_when_read()
    assert Config.__init__ is before


@pytest.fixture(
    scope='module',
    params=['', "runner_type = 'Runner'"],
    ids=['DETRRunner', 'Runner'],
)
def own_data(
    request: pytest.FixtureRequest,
    toy_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Data, a config of three lines on a tiny model, and its weights."""
    folder = tmp_path_factory.mktemp('own')
    shutil.copytree(toy_data, folder / 'shapes')
    text = three_lines(folder, TOY_CONFIG, f'{folder}/shapes')
    text = text.replace(repr(CLASSES), repr(all_classes())) + request.param
    path = write(folder, text)
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(path).model)
    model.init_weights()
    content = dict(
        state_dict=model.state_dict(),
        meta=dict(dataset_meta=dict(classes=all_classes()[:3])),
    )
    torch.save(content, folder / 'weights.pth')
    return path


def all_classes() -> tuple[str, ...]:
    from project.datasets.shapes_scene import SHAPE_CLASSES

    return SHAPE_CLASSES[:3]


@pytest.fixture
def image(own_data: Path) -> str:
    (path, *_) = sorted((own_data.parent / 'shapes' / 'val').glob('*.png'))
    return str(path)


def test_init_detector(own_data: Path) -> None:
    model = init_detector(
        str(own_data), str(own_data.with_name('weights.pth')), device='cpu'
    )
    assert model.bbox_head.num_classes == 3


def test_inferencer(own_data: Path, image: str, tmp_path: Path) -> None:
    inferencer = DetInferencer(
        model=str(own_data),
        weights=str(own_data.with_name('weights.pth')),
        device='cpu',
        show_progress=False,
    )
    grey = cv2.imread(image, cv2.IMREAD_GRAYSCALE)
    for inputs in (image, cv2.imread(image), grey):
        found = inferencer(inputs, out_dir=str(tmp_path), no_save_vis=False)
        (prediction,) = found['predictions']
        assert prediction['labels']
        assert set(prediction['labels']) <= {0, 1, 2}


@pytest.mark.parametrize('kind', [Runner, FlexibleRunner])
def test_plain_runners(own_data: Path, tmp_path: Path, kind: type) -> None:
    cfg = Config.fromfile(own_data)
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = f'{kind.__name__} {tmp_path}'
    cfg.load_from = str(own_data.with_name('weights.pth'))
    runner = kind.from_cfg(cfg)
    metrics = runner.test()
    assert 'coco/bbox_mAP' in metrics
    assert runner.test_dataloader.dataset.metainfo['classes'] == all_classes()


def test_datasets_of_mmdets_tools(own_data: Path) -> None:
    """What browse_dataset and confusion_matrix build."""
    from mmdet.utils import replace_cfg_vals

    cfg = replace_cfg_vals(Config.fromfile(own_data))
    init_default_scope('mmdet')
    for split in ('train', 'test'):
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert dataset.metainfo['classes'] == all_classes()
        assert len(dataset)


@pytest.fixture
def tool(own_data: Path, tmp_path: Path) -> Iterator[Any]:
    """Runs one of mmdet's own tools."""

    def run(name: str, *arguments: str | Path) -> str:
        command = [sys.executable, MMDET_TOOLS / name, *arguments]
        result = subprocess.run(
            list(map(str, command)),
            env=tool_env(MPLBACKEND='agg'),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    return run


@pytest.mark.slow
def test_tools_of_mmdet(own_data: Path, tmp_path: Path, tool: Any) -> None:
    weights = own_data.with_name('weights.pth')
    out = tmp_path / 'found.pkl'
    said = tool('test.py', own_data, weights, '--out', out)
    assert 'coco/bbox_mAP' in said
    folder = 'analysis_tools'
    tool(f'{folder}/eval_metric.py', own_data, out)
    tool(f'{folder}/confusion_matrix.py', own_data, out, tmp_path / 'matrix')
    assert list((tmp_path / 'matrix').glob('*.png'))
    tool(f'{folder}/analyze_results.py', own_data, out, tmp_path / 'results')
    tool(
        f'{folder}/browse_dataset.py',
        own_data,
        *('--not-show', '--output-dir', tmp_path / 'browsed'),
    )
    assert list((tmp_path / 'browsed').rglob('*.png'))
    tool(f'{folder}/get_flops.py', own_data, '--num-images', '1')
    said = tool('misc/print_config.py', own_data)
    assert 'num_classes=3' in said
    tool(
        'train.py',
        own_data,
        *('--work-dir', tmp_path / 'trained', '--cfg-options', 'max_epochs=1'),
    )
    assert (tmp_path / 'trained' / 'epoch_1.pth').is_file()
