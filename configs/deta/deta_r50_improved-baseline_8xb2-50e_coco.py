# DETA's network and schedule with the training and testing of Deformable DETR:
# both stages are matched one-to-one, and nothing is suppressed.
_base_ = [
    '../_base_/models/deta_r50.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_50e.py',
    '../_base_/detr_runtime.py',
]

model = dict(
    proposal_selector=None,
    train_cfg=dict(first_stage_assigner=None, second_stage_assigner=None),
    test_cfg=dict(nms=None),
)
