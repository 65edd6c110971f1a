# What the four detectors with hybrid proposal refiners have in common.
_base_ = ['./dino_r50.py', './proposal_refiner.py']

model = dict(
    aux_weights=_base_.aux_weights,
    data_preprocessor=dict(
        _delete_=True,
        type='MultiBranchDataPreprocessor',
        data_preprocessor=_base_.model.data_preprocessor,
    ),
    # Not torchvision's weights: backbone_pth/README.md says what they are.
    backbone=dict(init_cfg=dict(checkpoint='backbone_pth/backbone.pth')),
    decoder=dict(
        bbox_roi_extractor=_base_.bbox_roi_extractor,
        layer_cfg=_base_.refiners,
    ),
)
