"""The table of models, and what is counted for it."""

from pathlib import Path

import pytest
import torch
from mmcv.ops import RoIAlign
from mmdet.models import BaseDetector
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn import functional as F

from project.ops import attention_backend, multi_scale_deformable_attention
from tests.helpers.configs import ROOT, read_config
from tests.helpers.training import load_tool

zoo = load_tool('analysis_tools/model_zoo')
MODELS = {model['Name']: model for model in zoo.shown_models()}


def test_readme_has_the_table_of_the_metafiles() -> None:
    text = (ROOT / 'README.md').read_text()
    table = text.partition(zoo.BEGIN)[2].partition(zoo.END)[0]
    assert table == zoo.table()
    assert len(MODELS) > 50


@pytest.mark.parametrize('name', MODELS)
def test_rows_say_what_the_configs_do(name: str) -> None:
    path = Path(MODELS[name]['Config']).relative_to('configs')
    model = read_config(str(path)).model
    row = MODELS[name]['Metadata']['Zoo']
    # Anchor DETR counts the queries of all patterns.
    counted = model.type == 'AnchorDETR'
    patterns = 1 if counted else model.get('num_patterns') or 1
    assert row['Queries'] == model.num_queries * patterns
    depth = model.backbone.get('depth')
    assert row['Backbone'].startswith(f'R-{depth}' if depth else 'Swin-')


class Parts(BaseDetector):
    """One of each kind of operation, of sizes that are told apart."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 5, 1, bias=False)
        self.neck = nn.Linear(7, 11)
        self.roi = RoIAlign((2, 2), sampling_ratio=3)

    def predict(self, image: Tensor, samples: list) -> None:
        self.backbone(image)
        self.neck(torch.ones(13, 7))
        self.roi(torch.ones(1, 2, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]))
        key = torch.ones(1, 2, 6, 4)
        F.scaled_dot_product_attention(torch.ones(1, 2, 3, 4), key, key)
        shapes = torch.tensor([[2, 3]])
        multi_scale_deformable_attention(
            torch.ones(1, 6, 2, 4),
            shapes,
            torch.tensor([0]),
            torch.full((1, 5, 2, 1, 3, 2), 0.5),
            torch.ones(1, 5, 2, 1, 3),
        )

    def init_weights(self) -> None: ...

    def loss(self, *args) -> None: ...

    def _forward(self, *args) -> None: ...

    def extract_feat(self, *args) -> None: ...


def test_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    tool = load_tool('analysis_tools/_complexity')
    monkeypatch.setattr(tool, 'build_detector', lambda *args: Parts())
    found = tool.count(Config(), (4, 6))
    parts = {name: part.operations for name, part in found.parts.items()}
    assert parts['backbone'] == 4 * 6 * 3 * 5
    assert parts['neck'] == 13 * 7 * 11
    # 2 channels, 2 x 2 bins, 3 x 3 samples in each of four pixels
    assert parts['roi'] == 2 * 4 * 9 * 4
    rest = found.operations - sum(parts.values())
    # two heads, 3 x 6 pairs, scores and values of 4 channels; then 5 queries,
    # 2 heads, 3 points, 4 channels of four pixels and a weight
    assert rest == 2 * 3 * 6 * (4 + 4) + 5 * 2 * 3 * 4 * 5
    assert found.parameters == 3 * 5 + 7 * 11 + 11


def test_operations_of_both_forms_of_attention_are_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mmdet's detectors run mmcv's form on a CPU."""
    tool = load_tool('analysis_tools/_complexity')
    monkeypatch.setattr(tool, 'build_detector', lambda *args: Parts())
    found = {}
    for backend in ('cpp', 'pytorch'):
        with attention_backend(backend):
            found[backend] = tool.count(Config(), (4, 6)).operations
    assert found['cpp'] == found['pytorch']
