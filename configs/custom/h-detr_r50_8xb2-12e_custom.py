# Start here for your own data: set `data_root` and `classes` in a config that
# inherits this one, or with --cfg-options; docs/data.md tells the layout, and
# `python tools/check_data.py CONFIG` what is in the data and wrong with it.
_base_ = '../h_detr/h-detr_r50_8xb2-12e_coco.py'

data_root = 'data/custom/'

train_dataloader = dict(
    drop_last=False,  # there may be fewer images than a batch has
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_ignored=True),
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator
