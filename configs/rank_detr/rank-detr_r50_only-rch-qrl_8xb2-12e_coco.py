_base_ = './rank-detr_r50_baseline_8xb2-12e_coco.py'
model = dict(rank_adaptive_classhead=True, query_rank_layer=True)
