_base_ = [
    '../_base_/models/deta_r50.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_12e.py',
    '../_base_/default_runtime.py',
]
randomness = dict(seed=42)  # of the first rank, each other one has its own
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[10],
        gamma=0.1,
    )
]
