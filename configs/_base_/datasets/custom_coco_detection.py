# Your own data with DETR's augmentation: a config built on this file sets
# `data_root` and `classes`, nothing else. With another augmentation see
# custom.py.
_base_ = ['./coco_detection_detr.py', './custom.py']

data_root = 'data/custom/'
classes = None

train_dataloader = _base_.custom.train_dataloader
val_dataloader = test_dataloader = _base_.custom.val_dataloader
val_evaluator = test_evaluator = dict(
    ann_file=data_root + 'annotations/val.json'
)
