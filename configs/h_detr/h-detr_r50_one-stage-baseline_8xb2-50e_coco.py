_base_ = [
    '../_base_/models/h-detr_r50.py',
    '../_base_/models/h-detr_no-tricks.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_50e.py',
    '../_base_/detr_runtime.py',
]

model = dict(
    _base_.no_tricks,
    as_two_stage=False,
    with_box_refine=False,
    one2many=None,
)
