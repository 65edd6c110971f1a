"""DETA's assigners give the pairs of the official ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss
from mmdet.registry import TASK_UTILS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from project.models.losses import SetCriterion
from project.models.task_modules import TopKIoUAssigner
from project.models.task_modules.set_prediction import (
    AssignedByPriors,
    PendingMatch,
    Predictions,
    PredictionSet,
    SetTargets,
)
from tests.helpers.configs import CONFIGS

BACKGROUND = 91


class Case:
    """One case: boxes, ground truth, pairs."""

    def __init__(self, path: Path, meta: dict) -> None:
        name = meta['name']
        self.stage = meta['stage']
        with np.load(path.with_suffix('.npz')) as arrays:
            self.arrays = {
                key.removeprefix(f'{name}.'): torch.from_numpy(arrays[key])
                for key in arrays.files
                if key.startswith(f'{name}.')
            }

    def __getitem__(self, key: str) -> Tensor:
        return self.arrays[key]

    @property
    def targets(self) -> SetTargets:
        boxes = self['gt_boxes']
        return SetTargets(
            # One of the cases lists more labels than boxes.
            labels=self['gt_labels'][: len(boxes)],
            bboxes_normalized=boxes,
            image_sizes=torch.ones(1, 4, dtype=boxes.dtype),
            counts=[len(boxes)],
            img_metas=[dict(img_shape=(1, 1))],
        )

    def assigned(self) -> PredictionSet:
        """Predictions that stand at the boxes, and know nothing."""
        boxes = self['boxes'].double()[None, None]
        scores = boxes.new_zeros(*boxes.shape[:3], BACKGROUND)
        predictions = Predictions(
            scores.requires_grad_(), boxes, class_agnostic=self.stage == 1
        )
        pairing = AssignedByPriors(self.assigner(), self['boxes'][None])
        return PredictionSet(predictions, pairing)

    def assigner(self) -> TopKIoUAssigner:
        """The assigner of the shipped config, with the recorded chance."""
        path = CONFIGS / 'deta' / 'deta_r50_5scale_8xb2-12e_coco.py'
        stage = {1: 'first', 2: 'second'}[self.stage]
        config = Config.fromfile(path).model.train_cfg
        with DefaultScope.overwrite_default_scope('mmdet'):
            assigner = TASK_UTILS.build(config[f'{stage}_stage_assigner'])
        permutation = self.arrays.get('positive_permutation')
        if permutation is not None:
            sampler = assigner.sampler
            keep = sampler.keep_positives

            def keep_recorded(positive: Tensor) -> Tensor:
                keys = torch.zeros(len(positive))
                listed = positive.nonzero()[:, 0]
                keys[listed[permutation]] = torch.arange(float(len(listed)))
                sampler.random_keys = lambda *_: keys
                return keep(positive)

            sampler.keep_positives = keep_recorded
        return assigner


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = metafunc.config.getoption('goldens')
    cases = {
        case['name']: (path, case)
        for path in sorted(folder.rglob('assigners.json'))
        for case in json.loads(path.read_text())['cases']
    }
    metafunc.parametrize(('path', 'meta'), cases.values(), ids=cases.keys())


def test_pairs(path: Path, meta: dict) -> None:
    case = Case(path, meta)
    (pairs,) = PendingMatch([case.assigned()], case.targets).result()
    assert pairs.query.equal(case['query'])
    assert pairs.target.equal(case['gt'])
    assert pairs.counts == [len(case['gt'])]


def test_classes(path: Path, meta: dict) -> None:
    """What each box learns to be: the gradient of the loss tells."""
    case = Case(path, meta)
    assigned = case.assigned()
    criterion = SetCriterion(FocalLoss(use_sigmoid=True), L1Loss(), GIoULoss())
    criterion([assigned], case.targets)['loss_cls'].backward()
    positive = assigned.predictions.cls_scores.grad[0, 0] < 0
    assert (positive.sum(1) <= 1).all()
    classes = torch.where(
        positive.any(1), positive.int().argmax(1), BACKGROUND
    )
    assert classes.equal(case['class'])
