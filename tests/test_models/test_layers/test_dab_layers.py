import pytest
import torch
from mmdet.models.layers.transformer import (
    MLP,
    DABDetrTransformerDecoder,
    DABDetrTransformerEncoder,
)
from torch import Tensor, nn

from project.models.layers.transformer.dab_layers import (
    DABDecoder,
    DABEncoder,
    LevelwiseDABDecoder,
)
from project.models.layers.transformer.query_groups import (
    QueryGroup,
    QueryGroups,
)

DIMS = 16
LEVELS = ((3, 4), (2, 2))


def layer_cfg(**cross_attn) -> dict:
    return dict(
        self_attn_cfg=dict(embed_dims=DIMS, num_heads=4),
        cross_attn_cfg=dict(
            embed_dims=DIMS, num_heads=4, cross_attn=True, **cross_attn
        ),
        ffn_cfg=dict(
            embed_dims=DIMS,
            feedforward_channels=32,
            act_cfg=dict(type='PReLU'),
        ),
    )


def randomised(module: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def inputs(num_keys: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return dict(
        query=randn(2, 7, DIMS),
        key=randn(2, num_keys, DIMS),
        key_pos=randn(2, num_keys, DIMS),
        key_padding_mask=randn(2, num_keys) > 1,
        anchors=3 * randn(2, 7, 4),
    )


@pytest.mark.parametrize('num_cp', [-1, 2])
def test_encoder_equals_mmdet(num_cp: int) -> None:
    cfg = layer_cfg()
    del cfg['cross_attn_cfg']
    cfg['self_attn_cfg'].update(batch_first=True)
    theirs = randomised(DABDetrTransformerEncoder(2, cfg))
    ours = DABEncoder(2, cfg, num_cp=num_cp).double()
    ours.load_state_dict(theirs.state_dict())
    given = inputs()
    arguments = given['key'], given['key_pos'], given['key_padding_mask']
    arguments[0].requires_grad_()
    found, expected = ours(*arguments), theirs(*arguments)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(found.square().sum(), arguments[0]),
        torch.autograd.grad(expected.square().sum(), arguments[0]),
    )


@pytest.mark.parametrize('num_cp', [0, 2])
def test_decoder_equals_mmdet(num_cp: int) -> None:
    """With mmdet's clamp, groups as a mask, and references with gradient."""
    theirs = randomised(DABDetrTransformerDecoder(3, layer_cfg()))
    ours = DABDecoder(
        3, layer_cfg(), inverse_sigmoid_eps=1e-5, num_cp=num_cp
    ).double()
    ours.load_state_dict(theirs.state_dict())
    reg_branch = randomised(MLP(DIMS, DIMS, 4, 3))
    groups = QueryGroups(
        [QueryGroup('dn0', 3, sees=('matching',)), QueryGroup('matching', 4)]
    )
    given = inputs()
    anchors = given.pop('anchors').requires_grad_()
    results = ours(
        **given,
        reference_points=anchors.sigmoid(),
        reg_branch=reg_branch,
        query_groups=groups,
    )
    expected = theirs(
        **given,
        query_pos=anchors,
        reg_branches=reg_branch,
        self_attn_masks=~groups.attention_mask(anchors.device),
    )
    pairs = [
        (results.hidden_states, expected[0]),
        (torch.stack(results.references), expected[1]),
    ]
    for ours_, theirs_ in pairs:
        torch.testing.assert_close(ours_, theirs_, rtol=1e-10, atol=1e-10)
        probe = torch.randn_like(theirs_)
        torch.testing.assert_close(
            torch.autograd.grad(
                (ours_ * probe).sum(), anchors, retain_graph=True
            ),
            torch.autograd.grad(
                (theirs_ * probe).sum(), anchors, retain_graph=True
            ),
        )


@pytest.mark.parametrize('eps', [1e-3, 1e-5])
def test_clamp_of_references(eps: float) -> None:
    """A reference at the border moves on from the clamp."""
    decoder = DABDecoder(2, layer_cfg(), inverse_sigmoid_eps=eps).double()
    given = inputs()
    boxes = torch.zeros_like(given.pop('anchors')) + 1e-9
    output = decoder(
        **given,
        reference_points=boxes,
        reg_branch=lambda query: torch.zeros_like(query[..., :4]),
    )
    torch.testing.assert_close(
        output.references[1], torch.full_like(boxes, eps), rtol=2e-3, atol=0
    )


def test_only_the_first_layer_adds_positions_to_contents() -> None:
    decoder = DABDecoder(3, layer_cfg())
    names = [n for n in decoder.state_dict() if 'cross_attn.qpos_proj' in n]
    assert names == [
        f'layers.0.cross_attn.qpos_proj.{leaf}' for leaf in ('weight', 'bias')
    ]


def test_levels_are_projected_and_mixed_as_the_authors_do() -> None:
    """Each level by itself, then weighted by the query before the layer."""
    decoder = randomised(LevelwiseDABDecoder(1, layer_cfg(num_levels=2)))
    (layer,) = decoder.layers
    given = inputs()
    anchors = given.pop('anchors')
    given['query'].zero_()
    seen = {}
    layer.cross_attn.register_forward_hook(
        lambda module, args, kwargs, output: seen.update(
            kwargs, query=args[0], output=output
        ),
        with_kwargs=True,
    )
    decoder(
        **given,
        reference_points=anchors.sigmoid(),
        reg_branch=None,
        level_shapes=LEVELS,
    )
    attention, level_query = layer.cross_attn, seen['level_query']
    torch.testing.assert_close(
        level_query,
        layer.self_attn.qcontent_proj(given['query'])
        + layer.self_attn.qpos_proj(seen['query_pos']),
    )
    weights = attention.level_weights(level_query).softmax(-1)
    # DAB-DETR's attention with the same projections, for one level a time.
    (plain,) = DABDecoder(1, layer_cfg()).double().layers
    plain.cross_attn.load_state_dict(attention.state_dict(), strict=False)
    expected, start = seen['query'], 0
    for level, (height, width) in enumerate(LEVELS):
        part = slice(start, start + height * width)
        start = part.stop
        attended = plain.cross_attn(
            seen['query'],
            given['key'][:, part],
            key_pos=given['key_pos'][:, part],
            key_padding_mask=given['key_padding_mask'][:, part],
            query_pos=seen['query_pos'],
            ref_sine_embed=seen['ref_sine_embed'],
            is_first=True,
        )
        projected = attended - seen['query']
        expected = expected + weights[..., level, None] * projected
    torch.testing.assert_close(
        seen['output'], expected, rtol=1e-10, atol=1e-10
    )


def test_small_boxes_in_half_precision() -> None:
    """Sizes are divided by the box's, which half precision cannot."""
    decoder = randomised(DABDecoder(2, layer_cfg())).float()
    given = {
        name: x.float() if x.is_floating_point() else x
        for name, x in inputs().items()
    }
    anchors = given.pop('anchors') - 6
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = decoder(
            **given,
            reference_points=anchors.sigmoid(),
            reg_branch=randomised(MLP(DIMS, DIMS, 4, 3)).float(),
        )
    assert output.hidden_states.isfinite().all()
    assert all(
        reference.dtype == torch.float32 for reference in output.references
    )
