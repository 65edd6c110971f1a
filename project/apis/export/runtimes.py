# Copyright (c) mmdetr authors. All rights reserved.
"""Formats of exported files: how they are written and run."""

import importlib.util
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from project.utils.errors import UserError

from .network import INPUT, OUTPUTS

OPSET = 18
"""From 17 on LayerNormalization is one operator; 18 is the first that
torch's exporter writes."""
Runner = Callable[[np.ndarray], list[np.ndarray]]
"""Takes images; returns boxes, scores and labels."""
NEEDED = {
    'onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    'openvino': ('onnx', 'onnxscript', 'openvino'),
    'torch-export': (),
}
"""Packages that a format needs besides torch."""


def check_packages(kind: str) -> None:
    """Raise if packages of a format are not installed.

    Args:
        kind (str): A key of :data:`NEEDED`.

    Raises:
        UserError: With the command that installs them.
    """
    missing = [x for x in NEEDED[kind] if not importlib.util.find_spec(x)]
    if missing:
        raise UserError(
            f'The format {kind} needs {", ".join(missing)}: pip install '
            "'mmdetr[export]'"
        )


def write(
    kind: str, program: ExportedProgram, path: Path, metadata: Mapping
) -> None:
    """Write a graph to a file.

    Args:
        kind (str): A key of :data:`NEEDED`.
        program (ExportedProgram): The graph.
        path (Path): The file; OpenVINO's ends in ``.xml`` and has another,
            ``.bin``, beside it.
        metadata (Mapping[str, str]): What the file says about itself.
    """
    if kind == 'torch-export':
        torch.export.save(
            program,
            path,
            extra_files={'metadata.json': json.dumps(dict(metadata))},
        )
    elif kind == 'onnx':
        write_onnx(program, path, metadata)
    else:
        import openvino

        between = path.with_suffix('.onnx')
        write_onnx(program, between, metadata)
        model = openvino.convert_model(between)
        for key, value in metadata.items():
            model.set_rt_info(value, ['mmdetr', key])
        openvino.save_model(model, path, compress_to_fp16=False)
        between.unlink()


def write_onnx(
    program: ExportedProgram, path: Path, metadata: Mapping
) -> None:
    """Write a graph as ONNX, with the weights in the same file."""
    from .onnx_ops import name_axes, translations

    for name in ('torch.onnx', 'onnxscript'):  # of what concerns only them
        logging.getLogger(name).setLevel(logging.ERROR)
    exported = torch.onnx.export(
        program,
        (),
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        opset_version=OPSET,
        dynamo=True,
        optimize=True,
        custom_translation_table=translations(),
        verbose=False,
    )
    assert exported is not None
    name_axes(exported.model)
    exported.model.metadata_props.update(metadata)
    exported.save(path, external_data=False)


def open_file(kind: str, path: Path, threads: int | None = None) -> Runner:
    """Load a file as its users do.

    Args:
        kind (str): A key of :data:`NEEDED`.
        path (Path): The file.
        threads (int, optional): CPU threads, by default as many as torch has.

    Returns:
        Callable: Runs it on the CPU in float32.
    """
    threads = threads or torch.get_num_threads()
    if kind == 'torch-export':
        return _torch_runner(torch.export.load(path).module())
    if kind == 'onnx':
        return _onnx_runner(path, threads)
    import openvino

    # On some CPUs its default is bfloat16, which gives other boxes.
    settings = dict(
        INFERENCE_PRECISION_HINT='f32', INFERENCE_NUM_THREADS=threads
    )
    compiled = openvino.Core().compile_model(path, 'CPU', settings)

    def run(images: np.ndarray) -> list[np.ndarray]:
        found = compiled(images)
        return [found[name] for name in OUTPUTS]

    return run


def _onnx_runner(path: Path, threads: int) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(path), options, providers=['CPUExecutionProvider']
    )
    return lambda images: session.run(list(OUTPUTS), {INPUT: images})


def _torch_runner(module: Any) -> Runner:
    def run(images: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            found = module(torch.from_numpy(images))
        return [tensor.numpy() for tensor in found]

    return run
