# Rank-DETR for your own data: as h-detr_r50_8xb2-12e_custom.py, and counted in
# epochs, where the published training counts iterations on COCO.
_base_ = [
    '../_base_/models/rank-detr_r50.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/datasets/custom.py',
    '../_base_/schedules/detr_12e.py',
    '../_base_/default_runtime.py',
]

data_root = 'data/custom/'

train_dataloader = _base_.custom.train_dataloader
val_dataloader = test_dataloader = _base_.custom.val_dataloader
val_evaluator = test_evaluator = dict(
    ann_file=data_root + 'annotations/val.json'
)
