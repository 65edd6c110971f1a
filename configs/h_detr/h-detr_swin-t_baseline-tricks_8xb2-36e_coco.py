# Without the one-to-many group: Deformable DETR with the three tricks.
_base_ = './h-detr_swin-t_8xb2-36e_coco.py'
model = dict(one2many=None)
