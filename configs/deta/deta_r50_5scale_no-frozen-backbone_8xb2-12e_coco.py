# Trains the first stage of the backbone, too. Its stem stays frozen, whatever
# the name, which is detrex's, says.
_base_ = './deta_r50_5scale_8xb2-12e_coco-detrex.py'
model = dict(backbone=dict(frozen_stages=0))
