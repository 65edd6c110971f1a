import pytest
import torch
from mmdet.models.layers.transformer import (
    DeformableDetrTransformerDecoder,
    DeformableDetrTransformerEncoder,
)
from torch import nn

from project.models.layers.transformer.deformable_layers import (
    BoxRefinementDecoder,
    DeformableEncoder,
)

DIMS = 16
LEVELS = ((6, 8), (3, 4))
NUM_POINTS = 60


def layer_cfg(decoder: bool) -> dict:
    deformable = dict(embed_dims=DIMS, num_heads=4, num_levels=2, dropout=0.0)
    ffn = dict(embed_dims=DIMS, feedforward_channels=32, ffn_drop=0.0)
    if not decoder:
        return dict(self_attn_cfg=deformable, ffn_cfg=ffn)
    dense = dict(embed_dims=DIMS, num_heads=4, dropout=0.0)
    return dict(self_attn_cfg=dense, cross_attn_cfg=deformable, ffn_cfg=ffn)


def box_heads(count: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(DIMS, 4).double() for _ in range(count))


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def decoder_inputs(reference_dims: int) -> dict:
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    return dict(
        query=rand(2, 7, DIMS),
        query_pos=rand(2, 7, DIMS),
        value=rand(2, NUM_POINTS, DIMS),
        key_padding_mask=None,
        reference_points=rand(2, 7, reference_dims),
        valid_ratios=rand(2, 2, 2) * 0.5 + 0.5,
        spatial_shapes=torch.tensor(LEVELS),
        level_start_index=torch.tensor([0, 48]),
    )


def test_encoder_equals_mmdet() -> None:
    theirs = randomised(
        DeformableDetrTransformerEncoder(
            num_layers=2, layer_cfg=layer_cfg(decoder=False)
        )
    )
    ours = DeformableEncoder(num_layers=2, layer_cfg=layer_cfg(decoder=False))
    ours = ours.double()
    ours.load_state_dict(theirs.state_dict())
    query = torch.randn(2, NUM_POINTS, DIMS, dtype=torch.float64)
    inputs = dict(
        query_pos=torch.randn_like(query),
        key_padding_mask=torch.rand(2, NUM_POINTS) > 0.8,
        valid_ratios=torch.tensor([[[1.0, 0.8]] * 2, [[0.7, 1.0]] * 2]),
        spatial_shapes=torch.tensor(LEVELS),
        level_start_index=torch.tensor([0, 48]),
    )
    expected = theirs(query, **inputs)
    result = ours(query, level_shapes=LEVELS, **inputs)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('reference_dims', [2, 4])
@pytest.mark.parametrize('refine', [True, False])
def test_decoder_equals_mmdet(reference_dims: int, refine: bool) -> None:
    settings = dict(
        num_layers=3,
        layer_cfg=layer_cfg(decoder=True),
        return_intermediate=True,
        post_norm_cfg=None,
    )
    theirs = randomised(DeformableDetrTransformerDecoder(**settings))
    ours = BoxRefinementDecoder(**settings).double()
    ours.load_state_dict(theirs.state_dict())
    heads = box_heads(3) if refine else None
    inputs = decoder_inputs(reference_dims)
    states, references = theirs(**inputs, reg_branches=heads)
    output = ours(**inputs, level_shapes=LEVELS, reg_branches=heads)
    torch.testing.assert_close(
        output.hidden_states, states, rtol=1e-11, atol=1e-11
    )
    first, *after = output.references
    assert first.equal(inputs['reference_points'])
    torch.testing.assert_close(torch.stack(after), references)
    assert output.layer_groups == (None,) * 3
    for layer_id, deltas in enumerate(output.box_deltas):
        expected = heads[layer_id](output.hidden_states[layer_id])
        torch.testing.assert_close(deltas, expected)
    assert len(output.box_deltas) == (3 if refine else 0)


def test_look_forward_twice_trains_the_head_before() -> None:
    decoder = BoxRefinementDecoder(
        num_layers=2,
        layer_cfg=layer_cfg(decoder=True),
        return_intermediate=True,
        post_norm_cfg=None,
        look_forward_twice=True,
    ).double()
    heads = box_heads(2)
    output = decoder(
        **decoder_inputs(4), level_shapes=LEVELS, reg_branches=heads
    )
    output.references[1].sum().backward()
    assert heads[0].weight.grad.abs().sum() > 0
    assert heads[1].weight.grad is None


@pytest.mark.parametrize('num_cp', [1, 2])
def test_recomputed_layers_train_alike(num_cp: int) -> None:
    gradients = []
    for count in (0, num_cp):
        decoder = randomised(
            BoxRefinementDecoder(
                num_layers=2,
                layer_cfg=layer_cfg(decoder=True),
                return_intermediate=True,
                post_norm_cfg=None,
                num_cp=count,
            )
        ).train()
        output = decoder(**decoder_inputs(4), level_shapes=LEVELS)
        output.hidden_states.pow(2).sum().backward()
        gradients.append(
            {name: p.grad for name, p in decoder.named_parameters()}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)
