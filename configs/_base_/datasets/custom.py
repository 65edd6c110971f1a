# Your own data in COCO format, under any config: what docs/data.md has a
# config take from here. The augmentation stays the config's own. Annotations
# lie in <data_root>/annotations/{train,val}.json, the images that they name in
# <data_root>/train/ and <data_root>/val/.
custom = dict(
    train_dataloader=dict(
        drop_last=False,  # there may be fewer images than a batch has
        # An epoch has an end, also with a config that counts iterations.
        sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
        dataset=dict(
            ann_file='annotations/train.json',
            data_prefix=dict(img='train/'),
            filter_cfg=dict(filter_ignored=True),
        ),
    ),
    val_dataloader=dict(
        dataset=dict(
            ann_file='annotations/val.json', data_prefix=dict(img='val/')
        )
    ),
)
