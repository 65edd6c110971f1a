_base_ = './h-detr_r50_one-stage-baseline_8xb2-50e_coco.py'
model = dict(with_box_refine=True)
