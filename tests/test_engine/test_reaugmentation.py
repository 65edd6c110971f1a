"""The data re-augmentation may end before the training does."""

from pathlib import Path

from torch import Tensor

from project.engine import DETRRunner
from tests.helpers.training import toy_config

PACK = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
)


def test_it_ends_with_the_pipeline_of_a_hook(
    toy_data: Path, tmp_path: Path
) -> None:
    cfg = toy_config(toy_data, tmp_path)
    loader = cfg.train_dataloader
    plain = [*loader.dataset.pipeline[:-1], PACK]
    loader.dataset.pipeline = [
        *plain[:-1],
        dict(
            type='MultiBranch',
            branch_field=['weak', 'strong'],
            weak=[PACK],
            strong=[dict(type='Solarize', prob=1.0), PACK],
        ),
    ]
    loader.update(num_workers=1, persistent_workers=True)
    cfg.model.data_preprocessor = dict(
        type='ReaugmentationDataPreprocessor',
        data_preprocessor=cfg.model.data_preprocessor,
    )
    cfg.custom_hooks = [
        dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=plain)
    ]
    runner = DETRRunner.from_cfg(cfg)
    sizes = []

    def note(module: object, inputs: tuple[Tensor]) -> None:
        if runner.model.training:
            sizes.append(len(inputs[0]))

    runner.model.backbone.register_forward_pre_hook(note)
    runner.train()
    assert sizes == [8, 8, 4, 4]
