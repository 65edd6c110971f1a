# Start here for your own data: set `data_root` and `classes` in a config that
# inherits this one, or with --cfg-options; docs/data.md tells the layout, and
# `python tools/check_data.py CONFIG` what is in the data and wrong with it.
_base_ = [
    '../h_detr/h-detr_r50_8xb2-12e_coco.py',
    '../_base_/datasets/custom.py',
]

data_root = 'data/custom/'

train_dataloader = _base_.custom.train_dataloader
val_dataloader = test_dataloader = _base_.custom.val_dataloader
val_evaluator = test_evaluator = dict(
    ann_file=data_root + 'annotations/val.json',
    classwise=True,  # AP of each class
)

# docs/training.md says what each of these does; uncomment what you want.
default_hooks = dict(checkpoint=dict(save_best='auto', rule='greater'))
custom_hooks = [
    # dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002),
    # dict(type='ValidationLossHook'),
    # dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP', rule='greater', min_delta=0.001, patience=10),
]
vis_backends = [
    dict(type='LocalVisBackend'),
    # dict(type='TensorboardVisBackend'),
    # dict(type='WandbVisBackend', init_kwargs=dict(project='mmdetr')),
    # dict(type='MLflowVisBackend', exp_name='mmdetr', tracking_uri='sqlite:///mlflow.db'),
]
visualizer = dict(vis_backends=vis_backends)
