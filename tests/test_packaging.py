# Copyright (c) mmdetr authors. All rights reserved.
"""The package works from its wheel, and leaves mmdet as it is."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import mmdet
import pytest
import torch
import yaml
from mmengine.config import Config
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project.datasets.shapes import make_shapes
from project.ops.building import library_name
from project.utils.environment import STACKS, installed_stack
from tests.helpers.configs import CONFIGS, ROOT, read_config
from tests.helpers.training import SHAPES_SPEC, toy_config

SOURCES = (
    'project',
    'configs',
    'tools',
    'LICENSE',
    'MANIFEST.in',
    'README.md',
    'model-index.yml',
    'pyproject.toml',
    'requirements.txt',
    'setup.cfg',
    'setup.py',
)
STACK = installed_stack()
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
REGISTRIES = """
import json, sys
import mmdet.datasets, mmdet.engine, mmdet.evaluation, mmdet.models
import mmdet.visualization
import mmengine.registry, mmdet.registry
from mmengine.registry import Registry

def entries():
    return {
        f'{module.__name__}.{registry.name}.{name}': entry
        for module in (mmengine.registry, mmdet.registry)
        for registry in vars(module).values()
        if isinstance(registry, Registry)
        for name, entry in registry.module_dict.items()
    }

before = entries()
import project
# Before a model is looked up, as the checks of a config do.
assert mmengine.registry.WEIGHT_INITIALIZERS.get('PyTorchInit')
mmdet.registry.MODELS.get('HDETR')
mmengine.registry.RUNNERS.get('DETRRunner')
after = entries()
changed = [name for name in before if after.get(name) is not before[name]]
added = {name: after[name].__module__ for name in set(after) - set(before)}
print(json.dumps([changed, added]))
"""
COST = """
import json, sys
import mmdet.datasets, mmdet.engine, mmdet.evaluation, mmdet.models
before = set(sys.modules)
import project
print(json.dumps(sorted(set(sys.modules) - before)))
"""
TWICE = """
import importlib, json
from mmengine.utils import import_modules_from_strings
import project
from mmdet.registry import MODELS
first = MODELS.get('HDETR')
import_modules_from_strings(['project', 'project'])
importlib.reload(project)
print(json.dumps(MODELS.get('HDETR') is first))
"""
FROM_THE_WHEEL = """
import json
from mmengine.config import Config
import project
from mmdet.registry import MODELS
from project.utils.paths import config_path, tool_path
config = config_path('h_detr/h-detr_r50_8xb2-12e_coco.py')
tool = tool_path('model_converters/official_to_mmdet.py')
detector = Config.fromfile(config).model.type
files = [project.__file__, str(config), str(tool)]
print(json.dumps([files, MODELS.get(detector).__module__]))
"""
INFER = """
import json, sys
from mmdet.apis import DetInferencer
config, checkpoint, image = sys.argv[1:]
inferencer = DetInferencer(config, checkpoint, device='cpu')
result = inferencer(image, pred_score_thr=0.0)['predictions'][0]
print()
print(json.dumps([len(result['scores']), len(result['bboxes'][0])]))
"""


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    return build_wheel(tmp_path_factory.mktemp('wheel'))


def build_wheel(folder: Path, **environ: str) -> Path:
    """The wheel, built from a copy because building writes to its folder."""
    for name in SOURCES:
        source, copy = ROOT / name, folder / 'source' / name
        copy.parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    pip(
        'wheel',
        *('--no-build-isolation', '--no-deps', '--wheel-dir', folder),
        folder / 'source',
        **environ,
    )
    return next(folder.glob('mmdetr-*.whl'))


@pytest.fixture(scope='module')
def run_installed(wheel, tmp_path_factory) -> Callable[..., str]:
    """Runs Python in an empty folder, with the wheel and no checkout."""
    site = tmp_path_factory.mktemp('site')
    pip('install', '--no-deps', '--target', site, wheel)
    elsewhere = tmp_path_factory.mktemp('elsewhere')

    def run(*arguments: object, cwd: Path = elsewhere) -> str:
        result = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={
                **os.environ,
                'OMP_NUM_THREADS': '1',
                'PYTHONPATH': str(site),
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run.site = site
    return run


def pip(*arguments: object, **environ: str) -> None:
    command = [sys.executable, '-m', 'pip', *map(str, arguments)]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}
    )
    assert result.returncode == 0, result.stdout + result.stderr


def run_for_json(code: str) -> object:
    """Run code in a fresh interpreter and read the last line it prints."""
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_wheel_holds_the_configs_and_tools(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())

    shipped = {
        name.removeprefix('project/.mim/configs/')
        for name in names
        if name.startswith('project/.mim/configs/') and name.endswith('.py')
    }
    there = {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob('*.py')}
    assert shipped == there
    assert 'project/.mim/model-index.yml' in names
    assert 'project/py.typed' in names
    assert 'project/.mim/tools/train.py' in names
    assert any(name.endswith('licenses/LICENSE') for name in names)


def test_wheel_holds_nothing_of_the_checkout_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition('/')[0] for name in names}
    assert {top for top in tops if not top.endswith('.dist-info')} == {
        'project'
    }
    unwanted = re.compile(r'__pycache__|\.pyc|tools/setup|benchmark_|demo\.py')
    assert not [name for name in names if unwanted.search(name)]


def test_the_sdist_makes_the_same_wheel(wheel, tmp_path):
    code = 'import sys; from setuptools.build_meta import build_sdist as build'
    subprocess.run(
        [sys.executable, '-c', f'{code}; build(sys.argv[1])', str(tmp_path)],
        cwd=wheel.parent / 'source',
        check=True,
        capture_output=True,
    )
    (archive,) = tmp_path.glob('mmdetr-*.tar.gz')
    options = ('--no-build-isolation', '--no-deps', '--wheel-dir', tmp_path)
    pip('wheel', *options, archive)
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(zipfile.ZipFile(tmp_path / wheel.name).namelist()) == names


@pytest.mark.skipif(shutil.which('c++') is None, reason='no compiler')
def test_wheel_holds_the_compiled_op_and_its_source(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert f'project/ops/lib/{library_name(torch.__version__)}' in names
    assert 'project/ops/csrc/sampling.h' in names
    assert wheel.name.endswith(f'-py3-none-{wheel_platform()}.whl')


def wheel_platform() -> str:
    return re.sub(r'[-.]', '_', sysconfig.get_platform())


def test_without_a_compiler_the_wheel_fits_everywhere(tmp_path):
    wheel = build_wheel(
        tmp_path, CXX='no-such-compiler', XDG_CACHE_HOME=str(tmp_path)
    )
    assert wheel.name.endswith('-py3-none-any.whl')
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith('.so')]
    assert 'project/ops/csrc/sampling.cpp' in names


def test_works_without_the_checkout(run_installed):
    output = run_installed('-c', FROM_THE_WHEEL)
    files, module = json.loads(output.splitlines()[-1])
    assert all(Path(file).is_relative_to(run_installed.site) for file in files)
    assert module == 'project.models.detectors.h_detr'


def test_stock_mmdet_tools_run_a_config_anywhere(run_installed, tmp_path):
    """mmdet's train.py, test.py and DetInferencer, with the wheel."""
    data, work_dir = tmp_path / 'data', tmp_path / 'work'
    make_shapes(data, SHAPES_SPEC)
    config = tmp_path / 'mine.py'
    cfg = toy_config(data, work_dir)
    cfg.dump(config)

    run_installed(MMDET_TOOLS / 'train.py', config, '--work-dir', work_dir)
    last = Path((work_dir / 'last_checkpoint').read_text())
    tested = run_installed(
        MMDET_TOOLS / 'test.py', config, last, '--work-dir', work_dir
    )
    assert 'coco/bbox_mAP' in tested

    image = next((data / 'val').iterdir())
    output = run_installed('-c', INFER, config, last, image)
    num_boxes = cfg.model.test_cfg.max_per_img
    assert json.loads(output.splitlines()[-1]) == [num_boxes, 4]


def test_the_data_is_looked_through_from_the_wheel(run_installed, tmp_path):
    data = tmp_path / 'data'
    make_shapes(data, SHAPES_SPEC)
    config = tmp_path / 'mine.py'
    toy_config(data, tmp_path / 'work').dump(config)
    tool = run_installed.site / 'project/.mim/tools/check_data.py'
    printed = run_installed(tool, config)
    assert 'Boxes of each class' in printed
    assert 'Nothing is wrong with the data.' in printed


def test_a_config_of_the_wheel_stands_alone(run_installed, tmp_path):
    name = 'h-detr_r50_8xb2-12e_coco'
    printed = run_installed('-m', 'project', 'config', name)
    assert '_base_' not in printed
    config = Config.fromstring(printed, '.py')
    assert config.to_dict() == read_config(f'h_detr/{name}.py').to_dict()


@pytest.mark.slow
def test_the_tools_of_the_wheel(run_installed, tmp_path):
    """From a folder to detections, and a checkpoint for other classes."""
    data, work_dir = tmp_path / 'data', tmp_path / 'work'
    make_shapes(data, SHAPES_SPEC)
    config = tmp_path / 'mine.py'
    toy_config(data, work_dir).dump(config)

    def run(*arguments: object) -> str:
        return run_installed('-m', 'project', *arguments, cwd=tmp_path)

    assert 'mmdetr' in run('env')
    assert 'Nothing is wrong' in run('check-data', config)
    run('train', config, '--work-dir', work_dir)
    last = Path((work_dir / 'last_checkpoint').read_text())
    tested = run('test', config, last, '--work-dir', work_dir)
    assert 'coco/bbox_mAP' in tested
    launched = run('launch', 'test', config, last, 1, '--work-dir', work_dir)
    assert 'coco/bbox_mAP' in launched
    assert 'images 5, detections' in run('detect', last, data / 'val')
    assert (tmp_path / 'detections/detections.csv').is_file()

    start = tmp_path / 'start.pth'
    run('convert', last, start, '--config', config, '--num-classes', 3)
    weights = torch.load(start)['state_dict']
    assert weights['bbox_head.cls_branches.0.weight'].shape[0] == 3

    tuned = tmp_path / 'tuned'
    options = ('--epochs', 1, '--work-dir', tuned, '--checkpoint', last)
    printed = run('finetune', data, '--model', config, *options)
    assert '-m project detect' in printed
    assert len(list(tuned.glob('best_*.pth'))) == 1


@pytest.mark.slow
def test_a_method_of_ones_own_passes_its_test(run_installed, tmp_path):
    run_installed('-m', 'project', 'new-method', 'size-detr', cwd=tmp_path)
    options = ('-p', 'no:cacheprovider', '-q')
    folder = tmp_path / 'size_detr'
    tested = run_installed('-m', 'pytest', *options, cwd=folder)
    assert re.search(r'^5 passed', tested, re.M), tested


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine, and the folder that it serves."""
    folder = tmp_path / 'served'
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}', folder
        server.shutdown()


@pytest.mark.slow
def test_mim_downloads_config_and_checkpoint(run_installed, served, tmp_path):
    pytest.importorskip('mim')
    address, folder = served
    (folder / 'official.pth').write_bytes(b'weights')
    site = tmp_path / 'site'
    shutil.copytree(run_installed.site, site)
    metafile = site / 'project/.mim/configs/h_detr/metafile.yml'
    text = metafile.read_text()
    wanted = f'Weights: {address}/official.pth?dl=1#/named.pth'
    metafile.write_text(re.sub(r'Weights: \S+', wanted, text))

    name = 'h-detr_r50_8xb2-12e_coco'
    options = ('--config', name, '--dest', '.')
    command = [sys.executable, '-m', 'mim', 'download', 'mmdetr', *options]
    paths = [str(site), os.environ.get('PYTHONPATH', '')]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / 'named.pth').read_bytes() == b'weights'
    config = Config.fromfile(tmp_path / f'{name}.py')
    shipped = read_config(f'h_detr/{name}.py')
    assert config.to_dict() == shipped.to_dict()


def test_leaves_the_entries_of_mmdet_and_mmengine():
    changed, added = run_for_json(REGISTRIES)
    assert changed == []
    assert 'mmdet.registry.model.HDETR' in added
    assert {module.partition('.')[0] for module in added.values()} == {
        'project'
    }


def test_importing_twice_is_harmless():
    assert run_for_json(TWICE) is True


def test_import_costs_little_beside_mmdet():
    """Few of its own modules, and no further library."""
    added = run_for_json(COST)
    assert {name.partition('.')[0] for name in added} == {'project'}
    # What is registered is imported when a registry is asked.
    registered = re.compile(r'project\.(models|datasets|engine|evaluation)')
    assert not [name for name in added if registered.match(name)]


def test_the_ranges_hold_the_tested_versions(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
        text = archive.read(name).decode()
    ranges = re.findall(r'^Requires-Dist: ([^;\n]+)$', text, re.MULTILINE)
    pins = read_pins()

    assert len(ranges) >= 6
    for requirement in map(Requirement, [*ranges, *STACKS[STACK]]):
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), requirement


def test_wheel_does_not_make_pip_build_mmcv(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
        text = archive.read(name).decode()
    required = re.findall(r'^Requires-Dist: (\S+)$', text, re.MULTILINE)
    assert not [name for name in required if 'mm' in name]


def test_the_extras_are_the_stacks(wheel):
    """Without their mmcv, which pip cannot build."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith('/METADATA'))
        text = archive.read(name).decode()
    for stack, ranges in STACKS.items():
        pattern = rf'^Requires-Dist: (\S+); extra == .{stack}.$'
        extra = map(Requirement, re.findall(pattern, text, re.MULTILINE))
        expected = map(Requirement, ranges)
        wanted = {str(line) for line in expected if 'mmcv' not in line.name}
        assert set(map(str, extra)) == wanted


def read_pins() -> dict[str, str]:
    """The versions of the stack that is installed here."""
    files = [ROOT / 'requirements.txt']
    if STACK != 'openmmlab':
        files.append(ROOT / f'requirements-{STACK}.txt')
    lines = [line for file in files for line in file.read_text().splitlines()]
    pins = [line.split(' ;')[0].split('==') for line in lines if '==' in line]
    names = {canonicalize_name(name): version for name, version in pins}
    if STACK != 'openmmlab':
        for name in ('mmcv', 'mmdet', 'mmengine'):
            del names[name]
    return names


# See requirements-onedl.txt.
UNMET = {
    ('imaug', 'imagecorruptions-imaug'),
    ('imaug', 'opencv-python'),
    ('imaug', 'opencv-python-headless'),
}


def test_requirements_are_complete():
    """Whatever a pinned package needs is pinned as well, and in its range."""
    pins = read_pins()
    # Of the same content, without the windows; see requirements.txt.
    pins['opencv-python'] = pins['opencv-python-headless']
    needs = [
        (name, requirement)
        for name in sorted(pins.keys() - {'opencv-python'})
        for requirement in map(Requirement, metadata.requires(name) or [])
        if is_wanted(requirement) and (name, requirement.name) not in UNMET
    ]
    wrong = [
        f'{name} needs {requirement}'
        for name, requirement in needs
        if not requirement.specifier.contains(
            pins.get(canonicalize_name(requirement.name), '0')
        )
    ]
    assert len(needs) > 50
    assert wrong == []


def is_wanted(requirement: Requirement) -> bool:
    """Whether it is no extra, and no library of torch's CUDA builds."""
    if re.match('nvidia-|cuda-|triton', requirement.name):
        return False
    marker = requirement.marker
    return marker is None or marker.evaluate({'extra': ''})


def test_model_index_names_the_metafiles():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    there = {str(p.relative_to(ROOT)) for p in CONFIGS.rglob('metafile.yml')}
    assert set(index['Import']) == there
