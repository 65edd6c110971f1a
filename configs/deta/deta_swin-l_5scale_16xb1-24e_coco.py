# Fine-tuning of a detector that was trained on Objects365: give its weights,
# converted with `--num-classes 80`, as `--cfg-options load_from=...`.
_base_ = './deta_r50_5scale_8xb2-24e_coco.py'
pretrained = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_large_patch4_window12_384_22k.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        pretrain_img_size=384,
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        drop_path_rate=0.3,
        out_indices=(1, 2, 3),
        with_cp=True,
        convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[384, 768, 1536]),
)
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
