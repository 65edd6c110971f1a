import torch
from mmdet.models.layers.transformer import coordinate_to_encoding

from project.models.layers.transformer.dab_deformable_decoder import (
    DABDeformableDecoder,
)

DIMS = 16


def test_positions_are_those_of_the_first_level() -> None:
    """From the second layer on the content scales them."""
    deformable = dict(embed_dims=DIMS, num_heads=4, num_levels=2, dropout=0.0)
    dense = dict(embed_dims=DIMS, num_heads=4, dropout=0.0)
    ffn = dict(embed_dims=DIMS, feedforward_channels=32, ffn_drop=0.0)
    decoder = DABDeformableDecoder(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dense, cross_attn_cfg=deformable, ffn_cfg=ffn
        ),
    )
    query, boxes = torch.randn(2, 5, DIMS), torch.rand(2, 5, 2, 4)
    encoding = coordinate_to_encoding(boxes[:, :, 0], num_feats=DIMS // 2)
    position = decoder.ref_point_head(encoding)
    for layer_id, expected in enumerate(
        [position, position * decoder.query_scale(query)]
    ):
        found = decoder.embed_position(layer_id, query, None, boxes)
        torch.testing.assert_close(found, expected)
