# The authors' recipe, which the published weights come from.
_base_ = [
    '../_base_/models/anchor-detr_r50.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/dino_50e.py',
    '../_base_/detr_runtime.py',
]

train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
