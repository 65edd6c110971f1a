_base_ = './h-detr_swin-l_8xb2-36e_coco.py'
model = dict(num_queries=900)
