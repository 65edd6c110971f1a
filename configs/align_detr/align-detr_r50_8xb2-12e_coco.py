_base_ = [
    '../_base_/models/align-detr_r50.py',
    '../_base_/datasets/coco_detection_detr_cv2.py',
    '../_base_/schedules/align-detr_12e.py',
    '../_base_/default_runtime.py',
]

# All processes draw the same noise, as by mmdet's default.
randomness = dict(diff_rank_seed=False)
