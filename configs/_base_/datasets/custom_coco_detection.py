# Your own data in COCO format. A config built on this file sets `data_root`
# and `classes`, nothing else: the number of classes of the model follows.
# Annotations lie in <data_root>/annotations/{train,val}.json, the images that
# they name in <data_root>/train/ and <data_root>/val/.
_base_ = './coco_detection_detr.py'

data_root = 'data/custom/'
classes = None

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
