"""tools/deployment: a file for ONNX Runtime detects what PyTorch detects."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.image import rescale_size
from PIL import Image

from project.apis import load_detector
from project.apis.export import exporting
from project.apis.export.network import ExportedNetwork
from project.datasets.transforms.detr_resize import size_within
from tests.helpers.trained import write_trained
from tests.helpers.training import load_tool

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
export = load_tool('deployment/export')
predict = load_tool('deployment/predict')

# Operators of TensorRT's ONNX parser (onnx-tensorrt, docs/operators.md, 10.x)
# that these files may have; those with limits are told in docs/deployment.md.
TENSORRT = set(
    [
        'Abs',
        'Add',
        'And',
        'BatchNormalization',
        'Cast',
        'Ceil',
        'Clip',
        'Concat',
        'Constant',
        'ConstantOfShape',
        'Conv',
        'Cos',
        'CumSum',
        'Div',
        'Einsum',
        'Equal',
        'Erf',
        'Exp',
        'Expand',
        'Flatten',
        'Floor',
        'Gather',
        'GatherElements',
        'GatherND',
        'Gelu',
        'Gemm',
        'GlobalAveragePool',
        'Greater',
        'GreaterOrEqual',
        'GridSample',
        'GroupNormalization',
        'Identity',
        'InstanceNormalization',
        'LayerNormalization',
        'LeakyRelu',
        'Less',
        'LessOrEqual',
        'Log',
        'LogSoftmax',
        'MatMul',
        'Max',
        'MaxPool',
        'Min',
        'Mod',
        'Mul',
        'Neg',
        'NonMaxSuppression',
        'NonZero',
        'Not',
        'Or',
        'Pad',
        'Pow',
        'PRelu',
        'Range',
        'Reciprocal',
        'ReduceL2',
        'ReduceMax',
        'ReduceMean',
        'ReduceMin',
        'ReduceProd',
        'ReduceSum',
        'Relu',
        'Reshape',
        'Resize',
        'RoiAlign',
        'Round',
        'ScatterElements',
        'ScatterND',
        'Shape',
        'Sigmoid',
        'Sign',
        'Sin',
        'Size',
        'Slice',
        'Softmax',
        'Split',
        'Sqrt',
        'Squeeze',
        'Sub',
        'Sum',
        'Tanh',
        'Tile',
        'TopK',
        'Transpose',
        'Trilu',
        'Unsqueeze',
        'Where',
        'Xor',
    ]
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
    """The toy model as ONNX, for images of any size."""
    out = tmp_path_factory.mktemp('exported') / 'model.onnx'
    export.main([*trained, '--format', 'onnx', '--out', str(out), '--dynamic'])
    return out


@pytest.mark.parametrize('shape', [(2, 96, 64), (1, 77, 131)])
def test_it_detects_what_pytorch_detects(
    file: Path, trained: tuple[str, str], shape: tuple[int, int, int]
) -> None:
    number, height, width = shape
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(number, 3, height, width, generator=generator) * 255
    network = ExportedNetwork(load_detector(trained[1], device='cpu').model)
    with torch.no_grad():
        expected = network(images)
    session = onnxruntime.InferenceSession(str(file))
    names = ['boxes', 'scores', 'labels']
    found = session.run(names, {'images': images.numpy()})
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


def test_interface_and_operators(file: Path) -> None:
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    (given,) = model.graph.input
    assert given.name == 'images'
    shape = given.type.tensor_type.shape.dim
    assert [x.dim_param or x.dim_value for x in shape] == [
        'batch',
        3,
        'height',
        'width',
    ]
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


def test_nothing_is_overwritten(
    file: Path, trained: tuple[str, str], capsys: Any
) -> None:
    before = file.read_bytes()
    with pytest.raises(SystemExit) as end:
        export.main([*trained, '--out', str(file)])
    assert 'exists' in str(end.value)
    assert file.read_bytes() == before


def test_a_file_that_differs_is_not_kept(
    trained: tuple[str, str], tmp_path: Path, monkeypatch: Any
) -> None:
    original = exporting.open_file

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
