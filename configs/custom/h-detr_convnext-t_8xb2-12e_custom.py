# H-DETR with a backbone of timm (pip install timm): as
# h-detr_r50_8xb2-12e_custom.py. docs/training.md tells of other backbones,
# also plain ViTs, and of the learning rates of their layers.
_base_ = './h-detr_r50_8xb2-12e_custom.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        model_name='convnext_tiny.fb_in22k',
        pretrained=True,
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
    ),
    neck=dict(in_channels=[192, 384, 768]),
)

optim_wrapper = dict(
    constructor='LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay=0.9),
)
