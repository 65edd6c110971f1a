# Turns R-50 into R-101: `model = dict(backbone=_base_.resnet101)`.
resnet101 = dict(
    depth=101,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://download.pytorch.org/models/resnet101-63fe2227.pth',
    ),
)
