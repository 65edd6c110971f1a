# Fine-tuning of a detector that was trained on Objects365: give its weights,
# converted with `--num-classes 80`, as `--cfg-options load_from=...`.
_base_ = [
    '../_base_/models/deta_swin-l.py',
    '../_base_/datasets/coco_detection_detr.py',
    '../_base_/schedules/detr_24e.py',
    '../_base_/detr_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=5e-5))

# Images 1.5 times as large. What is cropped from is not: it stays between 400
# and 600 pixels.
scales = [(short_side, 2000) for short_side in range(720, 1201, 48)]
train_pipeline = _base_.train_pipeline
train_pipeline[3].transforms[0][0].scales = scales
train_pipeline[3].transforms[1][2].scales = scales
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (2000, 1200)
train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
