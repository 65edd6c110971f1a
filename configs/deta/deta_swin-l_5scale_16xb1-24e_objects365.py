# Pre-training on Objects365, as far as the authors told of it: the training
# split, 24 epochs, larger images. Of the learning rate they said nothing; that
# of their R-50 models is taken.
_base_ = './deta_swin-l_5scale_16xb1-24e_coco.py'
model = dict(bbox_head=dict(num_classes=365))
optim_wrapper = dict(optimizer=dict(lr=2e-4))

data_root = 'data/Objects365/Obj365_v2/'
train_dataloader = dict(
    dataset=dict(
        type='Objects365V2Dataset',
        data_root=data_root,
        ann_file='annotations/zhiyuan_objv2_train.json',
        data_prefix=dict(img='train/'),
    )
)
val_dataloader = dict(
    dataset=dict(
        type='Objects365V2Dataset',
        data_root=data_root,
        ann_file='annotations/zhiyuan_objv2_val.json',
        data_prefix=dict(img='val/'),
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/zhiyuan_objv2_val.json')
test_evaluator = val_evaluator
