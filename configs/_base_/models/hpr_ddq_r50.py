_base_ = './hpr_r50.py'

model = dict(
    type='HPRDDQDETR',
    num_queries=300,
    dense_topk_ratio=1.5,
    dqs_cfg=dict(type='nms', iou_threshold=0.8),
    bbox_head=dict(type='HPRDDQDETRHead'),
)
