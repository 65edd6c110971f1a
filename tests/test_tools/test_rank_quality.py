"""The tool runs on detectors of this package and of mmdet."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from project.evaluation.layer_ranking import predict_layers
from project.utils.errors import UserError
from tests.helpers.configs import CONFIGS, ROOT
from tests.helpers.toy import build_model
from tests.helpers.training import TOY_CONFIG, load_tool

rank_quality = load_tool('analysis_tools/rank_quality')

# One of mmdet's own, with softmax scores, on the data of the toy config.
DETR_CONFIG = """
_base_ = [{toy!r}]
model = dict(
    _delete_=True,
    type='DETR',
    num_queries=10,
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675] * 3,
                           std=[58.0] * 3),
    backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(3,)),
    neck=dict(type='ChannelMapper', in_channels=[64], kernel_size=1,
              out_channels=32, num_outs=1),
    encoder=dict(num_layers=1, layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=32, num_heads=4, batch_first=True),
        ffn_cfg=dict(embed_dims=32, feedforward_channels=64))),
    decoder=dict(num_layers=3, return_intermediate=True, layer_cfg=dict(
        self_attn_cfg=dict(embed_dims=32, num_heads=4, batch_first=True),
        cross_attn_cfg=dict(embed_dims=32, num_heads=4, batch_first=True),
        ffn_cfg=dict(embed_dims=32, feedforward_channels=64))),
    positional_encoding=dict(num_feats=16, normalize=True),
    bbox_head=dict(type='DETRHead', num_classes=7, embed_dims=32,
                   loss_cls=dict(type='CrossEntropyLoss', class_weight=1.0)),
    test_cfg=dict(max_per_img=10),
)
"""

# One of this package whose decoder layers share a head.
ANCHOR_CONFIG = """
_base_ = [{toy!r}]
attention = dict(embed_dims=32, num_heads=4)
ffn = dict(embed_dims=32, feedforward_channels=64)
model = dict(
    _delete_=True,
    type='AnchorDETR',
    num_queries=12,
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[123.675] * 3,
                           std=[58.0] * 3),
    backbone=dict(type='ResNet', depth=18, base_channels=8, out_indices=(3,)),
    neck=dict(type='ChannelMapper', in_channels=[64], kernel_size=1,
              out_channels=32, num_outs=1),
    encoder=dict(num_layers=1, layer_cfg=dict(
        self_attn_cfg=attention, ffn_cfg=ffn)),
    decoder=dict(num_layers=3, layer_cfg=dict(
        self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)),
    bbox_head=dict(type='AnchorDETRHead', num_classes=7, embed_dims=32,
                   loss_cls=dict(type='FocalLoss', use_sigmoid=True)),
    test_cfg=dict(max_per_img=10),
)
"""


def save_weights(config: Config, path: Path) -> Path:
    model = build_model(config.model)
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def run(config: Path, data_root: Path, folder: Path) -> Path:
    """Run the tool on random weights; gives the path of the picture."""
    weights = save_weights(Config.fromfile(config), folder / 'weights.pth')
    picture = folder / 'out' / 'ranks.png'
    options = ['--out', str(picture), '--max-rank', '20', '--device', 'cpu']
    options += ['--title', 'a title', '--cfg-options']
    options += [f'data_root={data_root}']
    rank_quality.main([str(config), str(weights), *options])
    return picture


def check_results(picture: Path, num_layers: int) -> None:
    image = cv2.imread(str(picture))
    assert image is not None
    for panel in np.array_split(image, 3, axis=1):
        assert len(np.unique(panel.reshape(-1, 3), axis=0)) > 50
    layers = read_table(picture.with_suffix('.csv'))
    assert [row['layer'] for row in layers] == [
        str(i + 1) for i in range(num_layers)
    ]
    assert all(-1 <= float(row['rank_correlation']) <= 1 for row in layers)
    curves = read_table(picture.with_name('ranks_top-k.csv'))
    assert len(curves) == num_layers * 20
    for row in curves:
        assert 0 <= float(row['precision']) <= float(row['best_precision'])


def test_a_detector_of_this_package(toy_data: Path, tmp_path: Path) -> None:
    check_results(run(TOY_CONFIG, toy_data, tmp_path), num_layers=2)


def test_a_detector_with_denoising(toy_data: Path, tmp_path: Path) -> None:
    """Whose training has queries that its evaluation does not."""
    config = CONFIGS / 'demo' / 'dn-deformable-detr_r18_2xb2-10e_shapes.py'
    check_results(run(config, toy_data, tmp_path), num_layers=3)


def test_a_detector_of_mmdet(toy_data: Path, tmp_path: Path) -> None:
    config = tmp_path / 'config.py'
    config.write_text(DETR_CONFIG.format(toy=str(TOY_CONFIG)))
    check_results(run(config, toy_data, tmp_path), num_layers=3)


def test_layers_that_share_a_head(toy_data: Path, tmp_path: Path) -> None:
    config = tmp_path / 'config.py'
    config.write_text(ANCHOR_CONFIG.format(toy=str(TOY_CONFIG)))
    check_results(run(config, toy_data, tmp_path), num_layers=3)


def test_layers_are_those_of_the_model(toy_data: Path) -> None:
    """The last layer's numbers are what the detector detects."""
    from mmdet.registry import DATASETS
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DefaultScope

    from project.preflight.variables import resolve_config

    config = Config.fromfile(TOY_CONFIG)
    config.data_root = str(toy_data)
    config = resolve_config(config)
    model = build_model(config.model).eval()
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(config.test_dataloader.dataset)
    scores, _ = predict_layers(model, pseudo_collate([dataset[0]]))
    assert scores.shape == (2, 10, 7)
    with torch.no_grad():
        (sample,) = model.test_step(pseudo_collate([dataset[0]]))
    best = sample.pred_instances.scores
    torch.testing.assert_close(
        scores[-1].flatten().sort(descending=True).values[: len(best)], best
    )


def test_detectors_without_layers_are_named() -> None:
    class Faster(torch.nn.Module):
        def data_preprocessor(self, data: dict) -> dict:
            return dict(inputs=data)

        def forward(self, inputs: dict, mode: str) -> tuple:
            return (torch.zeros(1), torch.zeros(1))

    with pytest.raises(UserError, match='Faster gives no pred'):
        predict_layers(Faster(), {})


def test_a_set_without_objects_is_told(toy_data: Path, tmp_path: Path) -> None:
    weights = save_weights(Config.fromfile(TOY_CONFIG), tmp_path / 'w.pth')
    content = json.loads((toy_data / 'annotations/val.json').read_text())
    content['annotations'] = []
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/val.json').write_text(json.dumps(content))
    (tmp_path / 'val').symlink_to(toy_data / 'val')
    options = ['--out', str(tmp_path / 'x.png'), '--device', 'cpu']
    options += ['--cfg-options', f'data_root={tmp_path}']
    with pytest.raises(SystemExit, match='None of the 5 images has an object'):
        rank_quality.main([str(TOY_CONFIG), str(weights), *options])


def test_missing_config_is_named() -> None:
    with pytest.raises(SystemExit, match=r'Error: The config no\.py does no'):
        rank_quality.main(['no.py', 'no.pth'])


def test_docs_name_the_columns() -> None:
    text = (ROOT / 'docs' / 'rank_quality.md').read_text()
    for column in (
        'rank_correlation',
        'rank_correlation_on_objects',
        'rank_correlation_of_hits',
        'precision_at_object_count',
        'duplicates_per_object_at_object_count',
        'best_precision',
    ):
        assert f'`{column}`' in text
