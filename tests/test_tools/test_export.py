"""tools/deployment: a file for ONNX Runtime detects what PyTorch detects."""

import json
import re
import subprocess
import venv
from pathlib import Path
from shutil import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL
import pytest
import torch
from mmcv.image import rescale_size
from PIL import Image

from project.apis import load_detector
from project.apis.export import exporting
from project.apis.export.comparison import Tolerance, compare
from project.apis.export.network import ExportedNetwork, capture
from project.apis.export.runtimes import open_file, write
from project.datasets.transforms.detr_resize import size_within
from project.utils.errors import UserError
from tests.helpers.configs import ROOT
from tests.helpers.trained import write_trained
from tests.helpers.training import TOY_CONFIG, load_tool
from tests.test_models.test_detectors.test_compile import CONFIGS, build

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
export = load_tool('deployment/export')
predict = load_tool('deployment/predict')
quantize = load_tool('deployment/quantize')
runtimes = load_tool('analysis_tools/benchmark_runtimes')

# What the parser of TensorRT 9.2 and later takes: docs/operators.md of
# onnx-tensorrt.
TENSORRT = set(
    (ROOT / 'tests/data/tensorrt_operators.txt').read_text().split()
)


@pytest.fixture(scope='module')
def trained(toy_data: Path, tmp_path_factory: Any) -> tuple[str, str]:
    """Config and checkpoint of the toy model."""
    folder = tmp_path_factory.mktemp('trained')
    checkpoint = folder / 'epoch_1.pth'
    config = write_trained(checkpoint, toy_data)
    config.dump(folder / 'config.py')
    return str(folder / 'config.py'), str(checkpoint)


@pytest.fixture(scope='module')
def file(trained: tuple[str, str], tmp_path_factory: Any) -> Path:
    """The toy model as ONNX, for one image of 64 x 64."""
    out = tmp_path_factory.mktemp('exported') / 'model.onnx'
    export.main([*trained, '--format', 'onnx', '--out', str(out)])
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'name'),
    [('onnx', 'm.onnx'), ('openvino', 'm.xml'), ('torch-export', 'm.pt2')],
)
def test_images_of_any_size(
    trained: tuple[str, str], tmp_path: Path, kind: str, name: str
) -> None:
    if kind == 'openvino':
        pytest.importorskip('openvino')
    out = tmp_path / name
    export.main([*trained, '--format', kind, '--out', str(out), '--dynamic'])
    run = open_file(kind, out)
    for shape in ((2, 96, 64), (1, 77, 131), (3, 64, 64)):
        check_detections(run, trained, shape)
    if kind == 'onnx':
        (given,) = onnx.load(out).graph.input
        axes = [x.dim_param for x in given.type.tensor_type.shape.dim]
        assert axes == ['batch', '', 'height', 'width']


@pytest.mark.slow
@pytest.mark.parametrize('name', list(CONFIGS))
def test_every_method(name: str, tmp_path: Path) -> None:
    """In images of other sizes than the traced ones."""
    network = ExportedNetwork(build(name))
    torch.manual_seed(1)
    for module in network.model.bbox_head.modules():
        if isinstance(module, torch.nn.Linear) and module.out_features == 80:
            # Apart, and away from 1, near which they round to ties.
            torch.nn.init.normal_(module.weight, std=0.05)
            torch.nn.init.normal_(module.bias, -4)
    program = capture(network, (256, 320), dynamic=True)
    check_file('onnx', program, network, tmp_path / 'm.onnx')
    kinds = {x.op_type for x in onnx.load(tmp_path / 'm.onnx').graph.node}
    assert not kinds - TENSORRT
    assert ('RoiAlign' in kinds) == name.startswith('hpr')
    assert ('NonMaxSuppression' in kinds) == (name in ('deta', 'hpr-ddq'))
    if name.startswith('hpr'):  # refused
        return
    pytest.importorskip('openvino')
    check_file('openvino', program, network, tmp_path / 'm.xml')


def check_file(
    kind: str, program: Any, network: ExportedNetwork, path: Path
) -> None:
    """It detects what PyTorch detects, in images of several sizes."""
    write(kind, program, path, {})
    run = open_file(kind, path)
    for shape in ((1, 256, 320), (2, 200, 100), (1, 97, 131)):
        images = torch.rand(shape[0], 3, *shape[1:]) * 255
        with torch.no_grad():
            expected = [x.numpy() for x in network(images)]
        found = run(images.numpy())
        difference = compare(expected, found, shape[1:], Tolerance())
        print(kind, shape, difference)
        assert not difference.exceeds(Tolerance()), difference


def check_detections(
    run: Any, trained: tuple[str, str], shape: tuple[int, int, int]
) -> None:
    number, height, width = shape
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(number, 3, height, width, generator=generator) * 255
    network = ExportedNetwork(load_detector(trained[1], device='cpu').model)
    with torch.no_grad():
        expected = network(images)
    found = run(images.numpy())
    assert [x.shape for x in found] == [
        (number, 20, 4),
        (number, 20),
        (number, 20),
    ]
    assert found[2].dtype == np.int64
    for tensor, array, tolerance in zip(
        expected, found, (1e-2, 1e-4, 0), strict=True
    ):
        assert np.abs(tensor.numpy() - array).max() <= tolerance


def test_interface_and_operators(file: Path, trained: tuple[str, str]) -> None:
    session = onnxruntime.InferenceSession(str(file))
    names = ['boxes', 'scores', 'labels']

    def run(images: np.ndarray) -> list[np.ndarray]:
        return session.run(names, {'images': images})

    check_detections(run, trained, (1, 64, 64))
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    (given,) = model.graph.input
    assert given.name == 'images'
    shape = given.type.tensor_type.shape.dim
    assert [x.dim_value for x in shape] == [1, 3, 64, 64]
    assert [x.name for x in model.graph.output] == [
        'boxes',
        'scores',
        'labels',
    ]
    (opset,) = {x.version for x in model.opset_import if not x.domain}
    assert opset >= 17
    assert not {x.domain for x in model.opset_import} - {'', 'ai.onnx'}
    kinds = {node.op_type for node in model.graph.node}
    assert {'GridSample', 'LayerNormalization', 'TopK'} <= kinds
    assert not kinds - TENSORRT


def test_prediction_without_this_package(
    file: Path, trained: tuple[str, str], toy_data: Path, capsys: Any
) -> None:
    path = sorted((toy_data / 'val').iterdir())[0]
    detector = predict.OnnxDetector(file)
    found = detector(Image.open(path), 0.0)
    expected = load_detector(trained[1], device='cpu')(str(path), 0)
    assert [x.name for x in found] == list(expected.names)
    scores = np.array([x.score for x in found])
    # Pillow's pixels are not OpenCV's.
    np.testing.assert_allclose(scores, expected.scores, atol=0.05)
    np.testing.assert_allclose(
        np.array([x.box for x in found]), expected.boxes, atol=2
    )


def test_prediction_where_nothing_else_is_installed(
    file: Path, toy_data: Path, tmp_path: Path
) -> None:
    """In an environment of numpy, Pillow and onnxruntime."""
    venv.create(tmp_path / 'bare', symlinks=True)
    (packages,) = (tmp_path / 'bare').glob('lib/python*/site-packages')
    for module in (np, PIL, onnxruntime):
        folder = Path(module.__file__).parent
        for part in folder.parent.glob(f'{folder.name.lower()}*.libs'):
            (packages / part.name).symlink_to(part)
        (packages / folder.name).symlink_to(folder)
    python = tmp_path / 'bare' / 'bin' / 'python'
    path = sorted((toy_data / 'val').iterdir())[0]
    command = [python, predict.__file__, file, path, '--score-thr', '0']
    lines = subprocess.check_output(command, env={}, text=True).splitlines()
    (line,) = map(json.loads, lines)
    expected = predict.OnnxDetector(file)(Image.open(path), 0.0)
    assert line['image'] == str(path)
    assert [x['name'] for x in line['objects']] == [x.name for x in expected]
    assert line['objects'][0]['box'] == pytest.approx(expected[0].box)
    code = 'import torch'
    assert subprocess.run([python, '-c', code], env={}).returncode


def test_int8_and_what_it_costs(
    file: Path, toy_data: Path, tmp_path: Path, capsys: Any
) -> None:
    """Each AP is of its own file; 64 x 64 is the size of the file."""
    images = tmp_path / 'images'
    images.mkdir()
    truth = json.loads((toy_data / 'annotations' / 'val.json').read_text())
    for image in truth['images']:
        picture = Image.open(toy_data / 'val' / image['file_name'])
        picture.resize((64, 64)).save(images / image['file_name'])
    detector = predict.OnnxDetector(file)
    truth['annotations'] = [
        dict(
            id=10 * image['id'] + rank,
            image_id=image['id'],
            category_id=truth['categories'][0]['id'],
            bbox=[*found.box[:2], *np.subtract(found.box[2:], found.box[:2])],
            area=100,
            iscrowd=0,
        )
        for image in truth['images']
        for rank, found in enumerate(
            [
                x
                for x in detector(Image.open(images / image['file_name']), 0)
                if x.name == truth['categories'][0]['name']
            ]
        )
    ]
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    out = tmp_path / 'int8.onnx'
    command = [str(file), str(images), '--out', str(out), '--num-images', '2']
    quantize.main([*command, '--annotations', str(tmp_path / 'truth.json')])
    printed = capsys.readouterr().out
    assert 'calibrated on 2 images' in printed
    assert f'{file}: bbox mAP 1.000' in printed
    (found,) = re.findall(rf'{out}: bbox mAP ([\d.]+)', printed)
    assert 0 < float(found) < 1
    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert {'QuantizeLinear', 'DequantizeLinear'} <= kinds
    assert out.stat().st_size < file.stat().st_size
    with pytest.raises(SystemExit, match='exists'):
        quantize.main(command)


@pytest.mark.slow
def test_runtimes_are_timed_in_turn(capsys: Any) -> None:
    pytest.importorskip('openvino')
    shape = ('--shape', '96', '128', '--repeats', '2')
    runtimes.main([str(TOY_CONFIG), *shape, '--threads', '1'])
    printed = capsys.readouterr().out
    rows = re.findall(r'([\d.]+) \| +([\d.]+) \| (\w+)\n', printed)
    assert [row[2] for row in rows] == list(runtimes.VARIANTS)
    assert all(float(row[0]) > 0 for row in rows)
    assert float(rows[0][1]) == 1


def test_nothing_is_overwritten(
    file: Path, trained: tuple[str, str], capsys: Any
) -> None:
    before = file.read_bytes()
    with pytest.raises(SystemExit) as end:
        export.main([*trained, '--out', str(file)])
    assert 'exists' in str(end.value)
    assert file.read_bytes() == before


def test_what_openvino_does_not_load_is_refused(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(exporting, 'check_packages', lambda kind: None)
    detector = SimpleNamespace(model=build('hpr-dino'))
    request = exporting.Request('openvino', tmp_path / 'm.xml', dynamic=True)
    with pytest.raises(UserError, match='HPRDETR cannot be exported to Open'):
        exporting.export(detector, request)


def test_a_file_that_differs_is_not_kept(
    file: Path, trained: tuple[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    original = exporting.open_file
    monkeypatch.setattr(exporting, 'capture', lambda *args: None)
    monkeypatch.setattr(
        exporting, 'write', lambda kind, program, path, _: copy(file, path)
    )

    def elsewhere(*args: Any) -> Any:
        run = original(*args)

        def shifted(images: np.ndarray) -> list[np.ndarray]:
            boxes, scores, labels = run(images)
            return [boxes + 1, scores, labels]

        return shifted

    monkeypatch.setattr(exporting, 'open_file', elsewhere)
    out = tmp_path / 'model.onnx'
    with pytest.raises(SystemExit) as end:
        export.main([*trained, '--out', str(out)])
    assert 'differs from PyTorch and is not kept' in str(end.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('rounding', ['down', 'nearest'])
def test_images_are_resized_as_in_the_pipelines(
    rounding: str, monkeypatch: Any
) -> None:
    detector = object.__new__(predict.OnnxDetector)
    detector.height = 'height'
    detector.preprocessing = dict(
        scale=[1333, 800], keep_ratio=True, rounding=rounding
    )
    rng = np.random.default_rng(0)
    for width, height in rng.integers(1, 3000, (500, 2)).tolist():
        expected = (
            size_within((width, height), (1333, 800))
            if rounding == 'down'
            else rescale_size((width, height), (1333, 800))
        )
        assert detector.input_size(width, height) == expected
