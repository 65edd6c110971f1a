_base_ = './dn-detr_r50-dc5_16xb1-50e_coco.py'
model = dict(num_patterns=3)

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(
        type='MultiStepLR',
        begin=0,
        end=max_epochs,
        by_epoch=True,
        milestones=[11],
        gamma=0.1,
    )
]
