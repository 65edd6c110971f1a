_base_ = './h-detr_swin-l_8xb2-12e_coco.py'
model = dict(num_queries=900)
