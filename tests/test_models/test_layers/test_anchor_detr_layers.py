import math

import torch
from mmdet.models.layers.transformer.utils import coordinate_to_encoding

from project.models.layers.transformer.anchor_detr_layers import (
    AnchorDecoder,
    AnchorEncoder,
    sine_encoding,
)

DIMS = 8
ATTENTION = dict(embed_dims=DIMS, num_heads=2)
FFN = dict(embed_dims=DIMS, feedforward_channels=6)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_encoding_of_single_coordinates() -> None:
    found = sine_encoding(torch.tensor([0.25, 1.0], dtype=torch.float64), 4)
    expected = [
        [1.0, 0.0, math.sin(math.pi / 200), math.cos(math.pi / 200)],
        [0.0, 1.0, math.sin(math.pi / 50), math.cos(math.pi / 50)],
    ]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64)
    )


def test_encoding_is_that_of_mmdet() -> None:
    points = torch.rand(1, 6, 2)
    x, y = points.unbind(-1)
    ours = torch.cat([sine_encoding(y, 16), sine_encoding(x, 16)], -1)
    torch.testing.assert_close(ours, coordinate_to_encoding(points, 16))


def test_encoder_layer_step_by_step() -> None:
    torch.manual_seed(0)
    encoder = AnchorEncoder(
        num_layers=1, layer_cfg=dict(self_attn_cfg=ATTENTION, ffn_cfg=FFN)
    ).double()
    feat, pos = draw(2, 3, 5, DIMS), (draw(2, 5, DIMS), draw(2, 3, DIMS))
    (layer,) = encoder.layers
    pixels = feat.flatten(1, 2)  # in the order of reading
    attended = layer.self_attn(
        pixels,
        feat,
        query_pos=(pos[0].repeat(1, 3, 1), pos[1].repeat_interleave(5, 1)),
        value_pos=pos,
    )
    normed = layer.norms[0](attended)
    hidden = torch.relu(layer.ffn.layers[0][0](normed))
    expected = layer.norms[1](normed + layer.ffn.layers[1](hidden))
    found = encoder(feat, pos, (None, None))
    torch.testing.assert_close(found.flatten(1, 2), expected)


def test_decoder_layer_step_by_step() -> None:
    torch.manual_seed(0)
    layer_cfg = dict(
        self_attn_cfg=ATTENTION, cross_attn_cfg=ATTENTION, ffn_cfg=FFN
    )
    decoder = AnchorDecoder(num_layers=2, layer_cfg=layer_cfg).double()
    query, memory = draw(2, 4, DIMS), draw(2, 3, 5, DIMS)
    query_pos, axis_pos = draw(2, 4, DIMS), (draw(2, 4, DIMS),) * 2
    memory_pos = draw(2, 5, DIMS), draw(2, 3, DIMS)
    found = decoder(
        query,
        memory,
        query_pos=query_pos,
        query_axis_pos=axis_pos,
        memory_pos=memory_pos,
        padding=(None, None),
    )
    assert found.shape == (2, 2, 4, DIMS)
    for layer, state in zip(decoder.layers, found, strict=True):
        key = (query + query_pos).transpose(0, 1)
        value = query.transpose(0, 1)
        attended = layer.self_attn.attn(key, key, value)[0].transpose(0, 1)
        query = layer.norms[0](query + attended)
        query = layer.cross_attn(query, memory, axis_pos, memory_pos)
        query = layer.norms[2](layer.ffn(layer.norms[1](query)))
        torch.testing.assert_close(state, query)
