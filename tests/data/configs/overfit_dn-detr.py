# The overfitting H-DETR's data and schedule for the small DN-Deformable-DETR.
# The dense form would have to find small objects on a map of stride 32.
from mmengine import Config

_base_ = './overfit_h-detr.py'

_demo = '{{ fileDirname }}/../../../configs/demo/'
model = Config.fromfile(
    _demo + 'dn-deformable-detr_r18_2xb2-10e_shapes.py'
).model.to_dict()
model.update(_delete_=True, num_queries=30)
del Config
