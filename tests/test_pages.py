"""Every command and every piece of code on a page works, at toy size.

A new one fails here until it runs, or stands in ``NOT_RUN`` with the reason.
"""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from tests.helpers.configs import ROOT
from tests.helpers.pages import (
    Block,
    blocks,
    script_of,
    without_optional,
)
from tests.helpers.toy_checkout import make_checkout
from tests.helpers.training import load_tool, tool_env

# How commands begin that are not run here, and why.
NOT_RUN = {
    'make ': 'sets up, or runs this test among others',
    '.ci/': 'runs this test among others, or takes hours',
    'apt install': 'changes the machine',
    'pip install': 'changes the environment',
    'PIP_EXTRA_INDEX_URL=': 'sets up from the network',
    'python tools/app.py': 'serves a page; tests/test_apis/test_app.py',
    'mim download': 'needs the network; tests/test_packaging.py',
    'tools/slurm_': 'needs Slurm; tests/test_tools/test_slurm.py',
    "SRUN_ARGS='--signal": 'an outline, and needs Slurm',
    'python tools/analysis_tools/benchmark_growth.py': (
        'tests/test_tools/test_benchmark_growth.py'
    ),
    'torchrun': 'tests/test_engine/test_sharding.py',
    './dist_train.sh PATH/TO/': 'tests/test_tools/test_authors_configs.py',
}
# Words of the pages, and what stands for them in the toy checkout.
WORDS = {
    r'(official_to_mmdet\.py) SRC DST': r'\1 SRC.pth DST.pth',
    r'(check_data\.py) CONFIG': r'\1 my_config.py',
    r'\bCONFIG\b(?!=)(?<!\$CONFIG)': 'toy_config.py',
    r'\bCHECKPOINT\b': 'checkpoint.pth',
    r'\bSOURCE\b': 'photo.jpg',
    r'\bFILE\b': 'SRC.pth',
    r'\bDST\b(?!\.)': 'DST.pth',
    r'\bWORK_DIR\b': 'work',
    r'(dist_train\.sh \S+) (?:GPUS|\d+)\b': r'\1 1',
    r'(dist_(?:test|detect)\.sh \S+ \S+) (?:GPUS|\d+)\b': r'\1 1',
    r'best_coco_bbox_mAP_epoch_9': 'best_coco_bbox_mAP_epoch_1',
    r'/datasets/coco/|\bDATA/': 'data/coco/',
    r'PYTHONPATH=\.': 'PYTHONPATH=.:$PYTHONPATH',
    r'https://download\S+resnet50-\w+\.pth': 'backbone_pth/backbone.pth',
    r'\bstart\.pth': 'DST.pth',
}
# What a published model has fewer of: queries, layers and, on a ResNet-18,
# channels; by the method. For those that load no published weights.
FEW_LAYERS = (
    'model.encoder.num_layers=1 '
    'model.backbone.depth=18 model.neck.in_channels=128,256,512'
)
NARROW = (
    f'{FEW_LAYERS} model.decoder.num_layers=2 '
    'model.num_queries=20 model.test_cfg.max_per_img=20'
)
NARROW_OF = {
    'deta': NARROW,
    'h-detr': f'{NARROW} model.one2many.num_queries=20',
    'hpr': f'{NARROW} model.dn_cfg.group_cfg.num_dn_queries=10 '
    'model.decoder.layer_cfg.dy_conv_cfg.feat_channels=4',
}
NARROW_SWIN = (
    'model.backbone.embed_dims=24 model.backbone.depths=1,1,1,1 '
    'model.neck.in_channels=48,96,192 model.encoder.num_layers=1 '
    'model.decoder.num_layers=2 model.num_queries=20 '
    'model.one2many.num_queries=20 model.test_cfg.max_per_img=20'
)
# One epoch of a published model on four images of 64 pixels, and checkpoints
# without the half gigabyte of an optimizer's state.
SMALL = (
    '--cfg-options image_size=64 max_epochs=1 '
    'model.backbone.init_cfg.checkpoint=backbone_pth/backbone.pth '
    'default_hooks.checkpoint.save_optimizer=False '
    + ' '.join(
        f'{split}_dataloader.{key}'
        for split in ('train', 'val', 'test')
        for key in ('num_workers=0', 'persistent_workers=False')
    )
)
# What makes a command small, by how it begins.
OPTIONS = {
    r'\./dist_train\.sh my_config': SMALL,  # with load_from
    **{
        rf'\./dist_train\.sh configs/{folder}/': f'{SMALL} {narrow}'
        for folder, narrow in (
            ('deta', ''),  # with load_from
            ('h_detr', NARROW_OF['h-detr']),
            ('hpr', NARROW_OF['hpr']),
        )
    },
    r'\./dist_test\.sh configs/hpr/': (
        f'--cfg-options image_size=64 {NARROW_OF["hpr"]}'
    ),
    r'\./dist_train\.sh configs/demo': '--cfg-options max_epochs=1',
    r'\./dist_train\.sh toy': '--cfg-options max_epochs=1',
    r'\./dist_test\.sh configs/': '--cfg-options image_size=64',
    r'PYTHONPATH=.* python -m project train': SMALL.replace(
        'backbone_pth', '../backbone_pth'
    )
    + f' {NARROW_OF["h-detr"]} data_root=../data/coco/',
    r'python tools/finetune\.py': '--epochs 1 --image-size 64',
    r'\S+ tools/dataset_converters/make_shapes\.py': (
        '--train 4 --val 2 --size 64'
    ),
    r'\S+ tools/analysis_tools/browse_branches\.py': '--num-images 1',
    r'\S+ tools/analysis_tools/get_flops\.py': '--shape 64 64',
    r'.* tools/analysis_tools/benchmark\.py .*--mode data': (
        '--shape 64 64 --repeats 1'
    ),
    # What `$C` and `$CONFIG` stand for shows in their settings.
    r'.* tools/analysis_tools/benchmark\.py .*dy_conv_cfg': (
        f'--shape 64 64 --cfg-options {NARROW_OF["hpr"]}'
    ),
    r'.* tools/analysis_tools/benchmark\.py .*backbone\.with_cp': (
        f'--shape 64 64 --cfg-options {NARROW_SWIN}'
    ),
    # Of Rank-DETR each decoder layer has its own settings.
    r'.* tools/analysis_tools/benchmark\.py .*rank_detr': (
        f'--shape 64 64 --repeats 1 --cfg-options {FEW_LAYERS}'
    ),
    r'.* tools/analysis_tools/benchmark\.py': (
        f'--shape 64 64 --repeats 1 --cfg-options {NARROW}'
    ),
    r'.* tools/analysis_tools/benchmark_(attention|training_loss)\.py': (
        '--shape 64 64 --repeats 1'
    ),
    r'.* tools/analysis_tools/benchmark_set_prediction\.py': (
        '--gts 2 --queries 10 20 --tokens 30 --repeats 1'
    ),
    r'.* tools/analysis_tools/benchmark_matching\.py': (
        '--gts 4 --queries 20 --repeats 1'
    ),
    r'.* tools/analysis_tools/benchmark_hpr_decoder\.py': (
        '--img-shape 64 64 --queries 10 --layers 1 --repeats 1'
    ),
    # OpenVINO need not be installed.
    r'.* tools/analysis_tools/benchmark_runtimes\.py': (
        f'--shape 128 128 --repeats 1 --variants pytorch onnx '
        f'--cfg-options {NARROW}'
    ),
    r'.* tools/analysis_tools/benchmark_evaluation\.py': '--images 4',
    r'.* tools/analysis_tools/compare_precisions\.py': (
        '--methods DN-DETR --iterations 1 --cfg-options image_size=64'
    ),
    r'.* tools/analysis_tools/compare_methods\.py': (
        '--methods H-DETR --seeds 0 --epochs 1 --images 4 2 --repeats 1'
    ),
}
# What a block takes for granted, by a word of it.
_EXPORT = (
    'python tools/deployment/export.py toy_config.py checkpoint.pth '
    '--format onnx --out model.onnx'
)
BEFORE = {
    "OnnxDetector('model.onnx')": _EXPORT,
    'quantize.py model.onnx': _EXPORT,
    'WORK_DIR/finetune.py': (
        'python tools/finetune.py data/mine --model toy_config.py '
        '--epochs 1 --work-dir work --check-only'
    ),
    'plot_training.py WORK_DIR': './dist_train.sh toy_config.py 1 work',
    'cd size_detr': 'python -m project new-method size-detr',
}
# Words of single pages.
WORDS_OF = {
    'configs/hpr/README.md': {
        r'\bCHECKPOINT\b': 'work_dirs/hpr-dino/epoch_1.pth'
    },
    # Without the 219 million parameters of the Swin-L.
    'configs/deta/README.md': {
        r'\bO365\.pth': 'SRC.pth',
        'deta_swin-l_5scale_16xb1-24e': 'deta_r50_5scale_8xb2-12e',
    },
    'docs/checkpoints.md': {'--num-classes 5': '--num-classes 2'},
    'docs/deployment.md': {
        r'\bimages/ ': 'toy/val ',
        r'\bval\.json': 'toy/annotations/val.json',
    },
}
# Names that a piece of code takes for granted, by a word of it.
GIVEN = {
    'OnnxDetector': (
        'import sys\n'
        'from PIL import Image\n'
        "sys.path.append('tools/deployment')\n"
        "image = Image.open('photo.jpg')"
    ),
    'convert_state_dict': (
        'from tests.helpers.toy_checkout import published_model\n'
        'model = published_model()'
    ),
    'class MyHead': (
        'from mmdet.registry import MODELS\n'
        'from project.models.dense_heads import HDETRHead\n'
        'my_loss = sum'
    ),
}

SHELL = list(blocks('bash', 'sh'))
PYTHON = list(blocks('python'))
_CONFIG = re.compile('^(_base_|custom_imports)', re.M)
CONFIGS = [block for block in PYTHON if _CONFIG.search(block.text)]
CODE = [block for block in PYTHON if block not in CONFIGS]
RUN = [
    block
    for block in SHELL
    if not all(c.startswith(tuple(NOT_RUN)) for c in block.commands)
]


def test_pages_have_commands() -> None:
    assert len(RUN) >= 30
    assert len(CONFIGS) >= 8
    assert len(CODE) >= 4


def test_what_is_not_run_is_on_a_page() -> None:
    commands = [command for block in SHELL for command in block.commands]
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in commands), start


@pytest.mark.parametrize('block', SHELL, ids=str)
def test_commands_name_tools_and_options(
    block: Block,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Without running them; an option may be one of the tool behind."""
    for command in block.commands:
        script = script_of(command)
        if script is None:
            continue
        assert script.is_file(), command
        bare = re.sub(r"'[^']*'|torchrun .*?(?=tools/)", '', command)
        options = set(re.findall(r'(?<=[\s[])--[a-z][\w-]*', bare))
        task = re.search(r'(?:dist|slurm)_(\w+)\.sh', script.name)
        name = f'tools/{task[1]}.py' if task else script.relative_to(ROOT)
        assert options <= options_of(str(name), monkeypatch, capsys), command


def options_of(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> set[str]:
    tool = load_tool(name.removeprefix('tools/').removesuffix('.py'))
    monkeypatch.setattr(sys, 'argv', [name, '--help'])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        tool.parse_args()
    return set(re.findall(r'--[a-z][\w-]*', capsys.readouterr().out))


@pytest.mark.parametrize('block', CONFIGS, ids=str)
def test_configs_are_read(block: Block, tmp_path: Path) -> None:
    config = Config.fromfile(write_config(block, tmp_path))
    assert config.custom_imports.imports[0].partition('.')[0] == 'project'


def write_config(block: Block, folder: Path) -> Path:
    """Write a config where its bases are found."""
    if not (folder / 'configs').exists():
        make_checkout(folder, with_data=False)
    is_inside = "'../_base_/" in block.text
    path = folder / ('configs/mine' if is_inside else '.') / 'my_config.py'
    path.parent.mkdir(exist_ok=True)
    path.write_text(block.text)
    return path


@pytest.mark.parametrize('block', CODE, ids=str)
def test_code_is_python(block: Block) -> None:
    ast.parse(block.text)


def test_pictures_are_those_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / 'docs')
    drawing = importlib.import_module('draw_methods')
    for method in drawing.METHODS:
        name = f'{method.__name__}.svg'
        assert (drawing.IMAGES / name).read_text() == str(method()), name
        page = ROOT / 'configs' / method.__name__ / 'README.md'
        assert f'](../../docs/images/{name})' in page.read_text()
    pages = {path.parent.name for path in ROOT.glob('configs/*/README.md')}
    assert {method.__name__ for method in drawing.METHODS} == pages


def at_toy_size(command: str, page: str) -> str:
    """A command of a page as it runs in the toy checkout."""
    command = without_optional(command)
    own = WORDS_OF.get(page, {})
    for pattern, replacement in (own | WORDS | own).items():  # its own first
        command = re.sub(pattern, replacement, command)
    for pattern, options in OPTIONS.items():
        if re.match(pattern, command):
            return f'{command} {options}'
    return command


def script_for(block: Block) -> str:
    """A block as a shell script for the toy checkout."""
    lines = ['set -euxo pipefail']
    lines += [line for word, line in BEFORE.items() if word in block.text]
    lines += [
        at_toy_size(command, block.page)
        for command in block.commands
        if not command.startswith(tuple(NOT_RUN))
    ]
    return '\n'.join(lines)


@pytest.fixture
def run(
    tmp_path: Path, warm_env: dict[str, str], block: Block
) -> Callable[..., None]:
    """Runs a command in the checkout of a block."""
    make_checkout(tmp_path, block.page, block.text)

    def run(*command: str) -> None:
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env=tool_env(**warm_env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
        )
        assert result.returncode == 0, result.stdout[-4000:]

    return run


def distinct(found: list[Block]) -> list[Block]:
    """Leave out blocks whose commands all run in others."""
    kept: list[Block] = []
    seen: set[str] = set()
    for block in sorted(found, key=lambda x: -len(x.commands)):
        lines = set(script_for(block).splitlines())
        if not lines <= seen:
            kept.append(block)
            seen |= lines
    return kept


@pytest.mark.parametrize('block', distinct(RUN), ids=str)
def test_commands_work(block: Block, run: Callable[..., None]) -> None:
    run('bash', '-c', script_for(block))


@pytest.mark.parametrize('block', CODE, ids=str)
def test_code_works(
    block: Block, run: Callable[..., None], tmp_path: Path
) -> None:
    if 'import ray' in block.text:
        pytest.importorskip('ray')
    given = [lines for word, lines in GIVEN.items() if word in block.text]
    text = block.text.replace("'SRC'", "'SRC.pth'")
    (tmp_path / 'code.py').write_text('\n'.join([*given, text]))
    before = [line for word, line in BEFORE.items() if word in block.text]
    run('bash', '-c', '\n'.join(['set -euxo pipefail', *before]))
    run('python', 'code.py')


@pytest.mark.parametrize(
    'block', [b for b in CONFIGS if '_base_' in b.text], ids=str
)
def test_configs_train(
    block: Block, run: Callable[..., None], tmp_path: Path
) -> None:
    path = write_config(block, tmp_path).relative_to(tmp_path)
    length = 'max_epochs=1'
    if '88k' in block.text:
        length = 'train_cfg.max_iters=2 train_cfg.val_interval=2'
    options = SMALL.replace('max_epochs=1', length)
    method = next((x for x in NARROW_OF if x in block.text), 'hpr')
    options += f' {NARROW_OF[method]}'
    if 'configs/custom/' in block.text and 'data_root' not in block.text:
        options += ' data_root=data/mine/ classes=cat,dog'
    if 'images/train' in block.text:
        convert = 'tools/dataset_converters/yolo_to_coco.py'
        run('python', convert, 'data/mine')
    run('bash', '-c', f'./dist_train.sh {path} 1 work {options}')
