_base_ = [
    '../_base_/models/dn-deformable-encoder-detr_r50.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/dino_12e.py',
    '../_base_/detr_runtime.py',
]

train_dataloader = dict(batch_size=1)
