"""Training and testing on photographs: the sample beside the repository."""

import json
import math
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import project.engine  # noqa: F401  registers the runner
from tests.helpers.configs import CONFIGS, ROOT, SHARED
from tests.helpers.training import run_tool

COCO_MINI = SHARED / 'data' / 'coco_mini'
TEST_CONFIGS = ROOT / 'tests' / 'data' / 'configs'

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not COCO_MINI.is_dir(), reason='needs ../shared/data/coco_mini'
    ),
]


def build_runner(config: Config, work_dir: Path) -> Runner:
    config.work_dir = str(work_dir)
    # mmengine keeps these by name for the whole process.
    config.experiment_name = config.visualizer.name = str(work_dir)
    config.model.backbone.init_cfg = None
    for dataloader in (config.train_dataloader, config.val_dataloader):
        dataloader.update(num_workers=0, persistent_workers=False)
    config.test_dataloader = config.val_dataloader
    return RUNNERS.build(config)


class StartingWeights(Hook):
    """Keeps what the training starts from, after its initialisation."""

    def before_train(self, runner: Runner) -> None:
        self.weights = {
            name: value.clone()
            for name, value in runner.model.named_parameters()
        }


def logged_losses(work_dir: Path) -> list[float]:
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [entry['loss'] for entry in entries if 'loss' in entry]


# From random weights the residual branches of the backbone stay at zero: the
# norms at their ends are frozen.
TRAINED = ['backbone.layer2.0.downsample.0.weight', 'neck.convs.0.conv.weight']
DEFORMABLE = [
    *TRAINED,
    'neck.extra_convs.0.conv.weight',
    'encoder.layers.0.self_attn.value_proj.weight',
    'memory_trans_fc.weight',
    'query_embedding.weight',
    'decoder.layers.5.cross_attn.output_proj.weight',
    'bbox_head.cls_branches.6.weight',
    'bbox_head.reg_branches.5.4.weight',
]
RANK = [
    *DEFORMABLE,
    'decoder.rank_aware_content_query.4.weight',
    'decoder.pre_racq_trans.0.weight',
    'decoder.post_racq_trans.4.weight',
    'bbox_head.rank_adaptive_classhead_emb.5.weight',
]
REFINERS = [
    'decoder.layers.0.merger_SA.weights',
    'decoder.layers.5.regional_ca.sample_proj.weight',
    'decoder.layers.5.dy_conv.dynamic_layer.weight',
    'bbox_head_aux.0.cls_branches.5.weight',
    'bbox_head_aux.1.reg_branches.5.4.weight',
]
DETA = ['pix_trans_fc.weight' if 'query_' in x else x for x in DEFORMABLE]
ANCHOR = [
    *TRAINED,
    'encoder.layers.0.self_attn.in_proj_weight',
    'axis_pos_mlp.0.weight',
    'point_pos_mlp.0.weight',
    'patterns.weight',
    'anchor_points.weight',
    'decoder.layers.5.cross_attn.out_proj.weight',
    'bbox_head.cls_branches.0.weight',
    'bbox_head.reg_branches.0.4.weight',
]
LABELS = 'dn_query_generator.label_embedding.weight'
DN = [
    *TRAINED,
    'encoder.layers.0.self_attn.attn.in_proj_weight',
    'query_embedding.weight',
    LABELS,
    'decoder.layers.5.cross_attn.out_proj.weight',
    'bbox_head.fc_cls.weight',
    'bbox_head.fc_reg.layers.2.weight',
]
DN_DEFORMABLE = [
    *TRAINED,
    'neck.extra_convs.0.conv.weight',
    'encoder.layers.0.self_attn.value_proj.weight',
    'tgt_embed.weight',
    'refpoint_embed.weight',
    LABELS,
    'decoder.layers.5.cross_attn.output_proj.weight',
    'bbox_head.cls_branches.5.weight',
    'bbox_head.reg_branches.5.4.weight',
]


@pytest.mark.parametrize(
    ('name', 'trained'),
    [
        ('h-detr_r50_8xb2-12e', DEFORMABLE),
        ('rank-detr_r50_8xb2-12e', RANK),
        ('hpr-h-detr_r50_8xb2-12e', DEFORMABLE + REFINERS),
        ('hpr-rank-detr_r50_8xb2-12e', RANK + REFINERS),
        ('anchor-detr_r50_8xb2-50e', ANCHOR),
        ('deta_r50_5scale_8xb2-12e', DETA),
        ('dn-detr_r50_8xb2-50e', DN),
        ('dn-deformable-detr_r50_8xb2-50e', DN_DEFORMABLE),
    ],
)
def test_the_full_r50_config_trains_and_tests(
    tmp_path: Path, name: str, trained: list[str]
) -> None:
    """Two iterations of two images as published, then three test images."""
    (path,) = CONFIGS.glob(f'*/{name}_coco.py')
    config = Config.fromfile(path)
    config.data_root = str(COCO_MINI)
    config.randomness = dict(seed=0)
    config.train_dataloader.dataset.indices = 4
    config.val_dataloader.dataset.indices = 3
    if 'max_epochs' in config.train_cfg:
        config.train_cfg.max_epochs = 1
    else:  # the second iteration has the late matching cost, if any
        config.train_cfg.update(max_iters=2, val_interval=2)
        config.model.train_cfg.assigner.late_begin = 0.5
    config.default_hooks.logger.interval = 1
    if name.startswith('hpr-'):  # to fit 16 GB
        config.model.encoder.num_cp = config.model.decoder.num_cp = 6
    runner = build_runner(config, tmp_path)
    start = StartingWeights()
    runner.register_hook(start)
    runner.train()

    losses = logged_losses(tmp_path)
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    parameters = dict(runner.model.named_parameters())
    changed = {
        name
        for name, value in parameters.items()
        if not value.equal(start.weights[name])
    }
    assert all(parameters[name].requires_grad for name in changed)
    assert changed >= set(trained)
    metrics = runner.test()
    assert 0 <= metrics['coco/bbox_mAP'] <= 1


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        (
            'hpr-dino_r50_8xb2-12e',
            {
                'train_dataloader.batch_size': 1,
                'train_dataloader.dataset.indices': 2,
                'train_cfg.max_epochs': 1,
            },
        ),
        (
            'hpr-ddq_r50_lsj_16xb1-88k',
            {
                'train_dataloader.dataset.dataset.indices': 8,
                'train_cfg.max_iters': 2,
                'train_cfg.val_interval': 2,
                'default_hooks.checkpoint.interval': 2,
            },
        ),
    ],
)
def test_the_launchers_train_and_test_hpr(
    tmp_path: Path, name: str, options: dict
) -> None:
    """As published but for a step's images: one, and its strong copy."""
    config = f'configs/hpr/{name}_coco.py'
    options = {
        **options,
        'data_root': COCO_MINI,
        'model.backbone.init_cfg': None,
        'val_dataloader.dataset.indices': 3,
        'test_dataloader.dataset.indices': 3,
        'default_hooks.logger.interval': 1,
    }
    settings = [f'{key}={value}' for key, value in options.items()]
    trained, tested = tmp_path / 'trained', tmp_path / 'tested'
    result = run_tool(
        'dist_train.sh',
        *(config, '1', trained, '--cfg-options', *settings),
        cwd=ROOT,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    losses = logged_losses(trained)
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)

    (checkpoint,) = trained.glob('*.pth')
    settings.append(f'work_dir={tested}')
    result = run_tool(
        'dist_test.sh',
        *(config, checkpoint, '1', '--cfg-options', *settings),
        cwd=ROOT,
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    (path,) = tested.glob('*/*.json')
    assert 0 <= json.loads(path.read_text())['coco/bbox_mAP'] <= 1


def pick_images(root: Path, num_images: int, max_objects: int) -> list[str]:
    """Make a dataset of the sample's first images with few objects.

    Returns:
        The names of the classes that occur, in the order of the file.
    """
    source = COCO_MINI / 'annotations' / 'instances_train2017.json'
    coco = json.loads(source.read_text())
    by_image = {image['id']: [] for image in coco['images']}
    for annotation in coco['annotations']:
        by_image[annotation['image_id']].append(annotation)
    coco['images'] = [
        image
        for image in coco['images']
        if len(by_image[image['id']]) <= max_objects
        and not any(a['iscrowd'] for a in by_image[image['id']])
    ][:num_images]
    coco['annotations'] = [
        annotation
        for image in coco['images']
        for annotation in by_image[image['id']]
    ]
    (root / 'annotations').mkdir(parents=True)
    (root / 'annotations' / 'picked.json').write_text(json.dumps(coco))
    (root / 'train2017').symlink_to(COCO_MINI / 'train2017')
    found = {a['category_id'] for a in coco['annotations']}
    return [c['name'] for c in coco['categories'] if c['id'] in found]


@pytest.mark.parametrize(
    'method',
    ['h-detr', 'rank-detr', 'anchor-detr', 'deta', 'dn-detr', 'hpr-dino'],
)
def test_a_small_detector_learns_16_images_by_heart(
    tmp_path: Path, method: str
) -> None:
    data_root, work_dir = tmp_path / 'data', tmp_path / 'work_dir'
    config = Config.fromfile(TEST_CONFIGS / f'overfit_{method}.py')
    config.classes = pick_images(data_root, num_images=16, max_objects=5)
    config.data_root = str(data_root)
    runner = build_runner(config, work_dir)
    runner.train()

    assert len(runner.train_dataloader.dataset) == 16
    assigner = runner.model.bbox_head.assigner
    if getattr(assigner, 'late_match_costs', None):
        assert assigner.current_costs() is assigner.late_match_costs
    metrics = runner.val_loop.run()
    assert metrics['coco/bbox_mAP'] >= 0.6
