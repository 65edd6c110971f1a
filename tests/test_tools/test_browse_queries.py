"""Queries are followed through the decoder, to the points they look at."""

import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import nn

from project.evaluation.query_views import view_queries
from project.utils.errors import UserError
from tests.helpers.chromium import CHROMIUM, check_fits
from tests.helpers.toy import build_model, tiny_model_config
from tests.helpers.trained import write_trained
from tests.helpers.training import TOY_CONFIG, load_tool

browse_queries = load_tool('analysis_tools/browse_queries')
CONFIGS = {
    'anchor': 'anchor_detr/anchor-detr_r50_8xb2-50e_coco.py',
    'rank': 'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
}
SIZE = np.array([70, 50, 70, 50])


@cache
def build(name: str) -> nn.Module:
    """A detector that moves boxes and pads images."""
    config = (
        Config.fromfile(TOY_CONFIG).model
        if name == 'toy'
        else tiny_model_config(CONFIGS[name])
    )
    config.data_preprocessor.pad_size_divisor = 32
    model = build_model(config).eval()
    for branch in model.bbox_head.reg_branches:
        nn.init.normal_(branch[-1].weight, std=0.1)
    for branch in model.bbox_head.cls_branches:
        nn.init.normal_(branch.weight, std=0.3)
    return model


def prepare() -> dict:
    generator = torch.Generator().manual_seed(0)
    width, height = SIZE[:2].tolist()
    sample = DetDataSample(
        metainfo=dict(
            img_id=0,
            img_shape=(height, width),
            ori_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
    )
    image = torch.randint(256, (3, height, width), generator=generator)
    return dict(inputs=image.byte(), data_samples=sample)


@pytest.mark.parametrize('name', ['toy', 'rank'])
def test_points_are_those_of_a_known_attention(name: str) -> None:
    """Offsets are shares of the box: of half of it, over the points."""
    model = build(name)
    generator = torch.Generator().manual_seed(1)
    layers = []
    for layer in model.decoder.layers:
        attention = layer.cross_attn
        for linear in (
            attention.sampling_offsets,
            attention.attention_weights,
        ):
            nn.init.zeros_(linear.weight)
            nn.init.normal_(linear.bias, generator=generator)
        heads, points = attention.num_heads, attention.num_points
        offsets = attention.sampling_offsets.bias.detach().view(-1, 2)
        weights = attention.attention_weights.bias.detach().view(heads, -1)
        shares = weights.exp() / weights.exp().sum(1, keepdim=True) / heads
        layers.append((offsets / points, shares.flatten()))
    view = view_queries(model, prepare(), num_queries=4)
    assert view.points.shape[:2] == (2, 4)
    for index, (offsets, weights) in enumerate(layers):
        for query in range(4):
            x1, y1, x2, y2 = view.references[index, query]
            half = np.array([x2 - x1, y2 - y1]) / 2
            expected = np.array([x1, y1]) + half + offsets.numpy() * half
            found = view.points[index, query]
            np.testing.assert_allclose(found[:, :2], expected, atol=1e-5)
            np.testing.assert_allclose(found[:, 2], weights, atol=1e-6)
            assert found[:, 2].sum() == pytest.approx(1)
    levels = view.points[0, 0, :, 3].reshape(heads, -1, points)
    assert (levels == np.arange(levels.shape[1])[:, None]).all()


@pytest.mark.parametrize('name', ['toy', 'rank'])
def test_queries_keep_their_place(name: str) -> None:
    model = build(name)
    view = view_queries(model, prepare(), num_queries=4)
    np.testing.assert_allclose(view.references[1], view.boxes[0], atol=1e-5)
    assert np.abs(view.boxes[1] - view.boxes[0]).max() > 0.01
    assert (np.diff(view.scores[-1]) <= 0).all()
    with torch.no_grad():
        (sample,) = model.test_step(
            {key: [value] for key, value in prepare().items()}
        )
    best = sample.pred_instances[0]
    assert view.scores[-1, 0] == pytest.approx(best.scores.item())
    assert view.labels[-1, 0] == best.labels.item()
    box = np.clip(view.boxes[-1, 0], 0, 1) * SIZE
    np.testing.assert_allclose(box, best.bboxes[0], atol=1e-3)


def test_dense_attention_has_no_points() -> None:
    view = view_queries(build('anchor'), prepare(), num_queries=3)
    assert view.points.shape == (2, 3, 0, 4)
    sizes = view.references[..., 2:] - view.references[..., :2]
    np.testing.assert_allclose(sizes, 0)  # anchor points


def test_other_detectors_are_named() -> None:
    with pytest.raises(UserError, match='Linear is no detector of this'):
        view_queries(nn.Linear(1, 1), {})


@pytest.fixture(scope='module')
def page(
    toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[str]]:
    folder = tmp_path_factory.mktemp('queries')
    write_trained(folder / 'toy.pth', toy_data)
    images = [str(path) for path in sorted((toy_data / 'val').iterdir())[:2]]
    out = folder / 'queries.html'
    command = [str(TOY_CONFIG), str(folder / 'toy.pth'), *images]
    command += ['--out', str(out), '--num-queries', '5', '--device', 'cpu']
    browse_queries.main([*command, '--cfg-options', f'data_root={toy_data}'])
    return out.read_text(encoding='utf-8'), images


def test_page_is_whole(page: tuple) -> None:
    text, images = page
    assert len(text) < 100_000
    for source in re.findall('(?:src|href)="(.*?)"', text):
        assert source.startswith('data:')
    for image in images:
        assert f'<h2>{image}</h2>' in text
    data = json.loads(re.search('const IMAGES = (.*);', text)[1])
    assert len(data) == 2
    for image in data:
        assert len(image['queries']) == 5
        for query in image['queries']:
            assert len(query['boxes']) == len(query['references']) == 2
            for points in query['points']:
                weights = np.array(points).reshape(-1, 4)[:, 2]
                assert weights.sum() == pytest.approx(10_000, abs=50)
                assert set(points[3::4]) == {0, 1}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='needs chromium')
def test_page_fits_the_screen(page: tuple, tmp_path: Path) -> None:
    """With SCREENSHOTS=FOLDER its pictures are kept."""
    check_fits(page[0], tmp_path)
