_base_ = './rank-detr_r50_only-hmc_8xb2-12e_coco.py'
model = dict(bbox_head=dict(loss_cls=dict(type='GIoUAwareFocalLoss')))
