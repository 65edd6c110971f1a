# The authors' recipe, which the published weights come from.
_base_ = [
    '../_base_/models/anchor-detr_r50.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/dino_50e.py',
    '../_base_/default_runtime.py',
]
randomness = dict(seed=42)  # of the first rank, each other one has its own
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
