# Copyright (c) mmdetr authors. All rights reserved.
"""The tools of this package, wherever it is installed.

``python -m project detect ...`` is ``python tools/detect.py ...`` of the
checkout.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from project.utils.errors import UserError, did_you_mean
from project.utils.paths import tool_path

TOOLS = {
    'detect': 'detect.py',
    'app': 'app.py',
    'finetune': 'finetune.py',
    'train': 'train.py',
    'test': 'test.py',
    'report': 'report.py',
    'launch': 'launch.py',
    'check-data': 'check_data.py',
    'export': 'deployment/export.py',
    'convert': 'model_converters/official_to_mmdet.py',
    'publish': 'publish.py',
    'yolo-to-coco': 'dataset_converters/yolo_to_coco.py',
    'config': 'print_config.py',
    'new-method': 'new_method.py',
    'sheet': 'analysis_tools/detection_sheet.py',
    'plot': 'analysis_tools/plot_training.py',
}
"""What stands behind each name, below ``tools/``."""
_USES = {
    'detect': 'detect objects in images, videos, folders',
    'app': 'try detectors in the browser',
    'finetune': 'fine-tune a detector on a folder of images',
    'train': 'train a detector',
    'test': 'test a detector',
    'report': 'test a detector and report what it gets wrong',
    'launch': 'train, test or detect in several processes, as dist_train.sh, '
    'dist_test.sh and dist_detect.sh do',
    'check-data': 'check the data of a config',
    'export': 'export a detector to ONNX, OpenVINO or torch.export',
    'convert': "convert an authors' checkpoint",
    'publish': 'write a checkpoint of weights only, to share',
    'yolo-to-coco': 'convert annotations from YOLO to COCO',
    'config': 'print a shipped config, as a start for your own',
    'new-method': 'start a method of your own',
    'sheet': 'draw detections next to ground truth',
    'plot': 'plot the curves of trainings',
    'env': 'show what is installed, and what is wrong with it',
}


# Runs a script as Python does, but under the name that was typed, which the
# script's own usage line then says. (runpy puts the path in its place.)
_RUN = """\
import os.path, sys
__file__, *sys.argv = sys.argv[1:]
sys.path = [os.path.dirname(__file__), *filter(None, sys.path)]
with open(__file__, 'rb') as script:
    code = compile(script.read(), __file__, 'exec')
exec(code)
"""


def usage() -> str:
    """List the tools."""
    width = max(map(len, _USES)) + 2
    lines = [f'  {name:<{width}}{use}' for name, use in _USES.items()]
    return '\n'.join(
        ['usage: python -m project TOOL [--help] ...', '', *lines]
    )


def command(arguments: Sequence[str]) -> list[str]:
    """Find the command that a tool is.

    Args:
        arguments: The name of a tool, and what to give it.

    Returns:
        list[str]: The same without this package's name.

    Raises:
        UserError: If there is no such tool; names those most alike.
    """
    name, *given = arguments
    if name == 'env':
        return [sys.executable, '-m', 'project.env', *given]
    if name not in TOOLS:
        hint = did_you_mean(name, _USES)
        raise UserError(f'There is no tool {name!r}{hint}\n\n{usage()}')
    script = str(tool_path(TOOLS[name]))
    called = f'python -m project {name}'
    return [sys.executable, '-c', _RUN, script, called, *given]


def main(arguments: Sequence[str]) -> None:
    """Become the tool that is asked for."""
    if not arguments or arguments[0] in ('-h', '--help'):
        print(usage())
        sys.exit(0 if arguments else 2)
    try:
        started = command(arguments)
    except UserError as error:
        sys.exit(f'Error: {error}')
    # A script finds the packages beside itself, not where this one is.
    paths = (str(Path(__file__).parents[1]), os.environ.get('PYTHONPATH'))
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, paths))
    os.execv(started[0], started)


if __name__ == '__main__':
    main(sys.argv[1:])
