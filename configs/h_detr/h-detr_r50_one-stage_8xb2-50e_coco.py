# detrex's base file: hybrid matching of learned queries, which its own code
# cannot run because it asks for look forward twice without refinement.
_base_ = [
    '../_base_/models/h-detr_r50_detrex.py',
    '../_base_/datasets/coco_detection_detrex.py',
    '../_base_/schedules/detr_375k.py',
    '../_base_/detrex_runtime.py',
]

model = dict(
    as_two_stage=False,
    with_box_refine=False,
    mixed_selection=False,
    decoder=dict(look_forward_twice=False),
)
