# All that is not written here is H-DETR's.
_base_ = 'mmdetr::h_detr/h-detr_r50_8xb2-12e_coco.py'

custom_imports = dict(
    imports=['project', 'my_method'], allow_failed_imports=False
)

model = dict(
    type='MyMethod',
    content_scale=1.0,
    bbox_head=dict(
        type='MyMethodHead',
        num_copies=2,
        loss_bbox=dict(type='MyMethodLoss', loss_weight=1.0),
    ),
)
