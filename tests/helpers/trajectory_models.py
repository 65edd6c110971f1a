"""What the ``model`` entry of a trajectory leaves to the published settings.

Trajectories name what they change; the systems of goldens want all.
"""

from . import golden_systems
from .golden_runs import MAX_ITERS
from .golden_systems import deta, dn_detr, h_detr, hpr, rank_detr

_DN_DETR = dict(
    backbone='resnet50',
    dilated_last_stage=False,
    hidden_dim=256,
    heads=8,
    encoder_layers=6,
    decoder_layers=6,
    ffn=2048,
    num_patterns=0,
    activation='prelu',
    matcher=dict(cls=2, l1=5, giou=2),
    focal_alpha=0.25,
    position_temperature=20,
    enc_points=4,
    dec_points=4,
    dropout=0.0,
)
_DEFORMABLE = dict(
    activation='relu', position_temperature=10000, position_offset=-0.5
)
_DETA = dict(
    config='configs/deta.sh',
    backbone='ResNet-50',
    queries=900,
    classes=91,
    feature_levels=5,
    hidden=256,
    encoder_layers=6,
    decoder_layers=6,
    heads=8,
    points=4,
    ffn=2048,
    dropout=0.0,
    two_stage=True,
    box_refine=True,
    assign_first_stage=True,
    assign_second_stage=True,
)
_RANK_DETR = dict(
    dropout=0.0,
    backbone='ResNet-50, frozen BN, stem frozen',
    k_one2many=6,
    lambda_one2many=1.0,
    rank_adaptive_classhead=True,
    query_rank_layer=True,
    GIoU_aware_class_loss=True,
    mixed_selection=True,
    look_forward_twice=True,
    with_box_refine=True,
    as_two_stage=True,
    hidden=256,
    heads=8,
    encoder_layers=6,
    decoder_layers=6,
    ffn=2048,
    levels=4,
    num_classes=80,
    select_box_nums_for_evaluation=300,
)
_MATCHER = dict(cost_class=2, cost_bbox=5, cost_giou=2, alpha=0.25, gamma=2)
_WORDS = {
    'enc_layers': 'encoder_layers',
    'dec_layers': 'decoder_layers',
    'num_encoder_layers': 'encoder_layers',
    'num_decoder_layers': 'decoder_layers',
    'nheads': 'heads',
    'dim_feedforward': 'ffn',
}
"""Words of trajectories for what goldens of most sources call otherwise."""
_CONFIGS = {
    h_detr: 'h_detr/h-detr_r50_8xb2-12e_coco.py',
    deta: 'deta/deta_r50_5scale_8xb2-12e_coco.py',
    rank_detr: 'rank_detr/rank-detr_r50_8xb2-12e_coco.py',
    hpr: 'hpr/hpr-dino_r50_8xb2-12e_coco.py',
}


def completed_model(meta: dict, num_steps: int) -> dict:
    """The ``model`` entry as a golden of the system would have it.

    Args:
        meta: The trajectory's description.
        num_steps: Of the training.

    Returns:
        dict: A copy of the entry.
    """
    system = golden_systems.system_of(meta)
    entry = dict(meta['model'])
    if system in (h_detr, hpr):
        return entry
    entry = {_WORDS.get(key, key): value for key, value in entry.items()}
    if system is dn_detr:
        method = entry['method'] = _dn_method(entry.get('method', ''))
        changes = _DEFORMABLE if method != _dn_method('') else {}
        return {**_DN_DETR, **changes, **entry}
    if system is deta:
        for ours, theirs in (
            ('queries', 'num_queries'),
            ('classes', 'num_classes'),
            ('feature_levels', 'num_feature_levels'),
            ('hidden', 'hidden_dim'),
            ('box_refine', 'with_box_refine'),
        ):
            if theirs in entry:
                entry.setdefault(ours, entry.pop(theirs))
        if not str(entry.get('backbone', 'Swin')).startswith('Swin'):
            entry['backbone'] = 'ResNet-50'
        looked_at = candidates(meta)
        entry = {k: v for k, v in entry.items() if k not in looked_at}
        return {**_DETA, **entry}
    if system is rank_detr:
        return _rank_detr(entry, num_steps)
    return entry


def candidates(meta: dict) -> dict[str, int]:
    """How many points of each level DETA's first stage looks at.

    Returns:
        dict[str, int]: The number by its key in the entry; empty for the
        published 1000.
    """
    return {
        key: value
        for key, value in meta['model'].items()
        if 'candidates' in key or 'pre_nms' in key
    }


def _dn_method(text: str) -> str:
    """The goldens' name of a method of DN-DETR's authors."""
    if text in dn_detr.SHIPPED:
        return text
    dense, deformable, encoder = list(dn_detr.SHIPPED)[:3]
    if 'encoder only' in text.lower() or 'encoder_only' in text.lower():
        return encoder
    return deformable if 'deformable' in text.lower() else dense


def _rank_detr(entry: dict, num_steps: int) -> dict:
    """Its matching cost changes at a step of this training, if at all."""
    if 'hidden_dim' in entry:
        entry['hidden'] = entry.pop('hidden_dim')
    if 'swin' not in str(entry.get('backbone', '')).lower():
        entry['backbone'] = _RANK_DETR['backbone']
    given = entry.get('matcher', {})
    change = given.get(
        'matcher_change_iter', entry.get('matcher_change_iter', 67500)
    )
    matcher = dict(
        _MATCHER,
        iou_order_alpha=4.0,
        **{k: v for k, v in given.items() if k in (*_MATCHER, 'log_eps')},
    )
    matcher['iou_order_alpha'] = given.get('iou_order_alpha', 4.0)
    # A golden's training has MAX_ITERS steps.
    matcher['matcher_change_iter'] = min(change / num_steps, 1.0) * MAX_ITERS
    return {**_RANK_DETR, **entry, 'matcher': matcher}


def shipped_config(meta: dict) -> str:
    """The config whose recipe a trajectory follows, in configs/."""
    system = golden_systems.system_of(meta)
    if system is dn_detr:
        return f'dn_detr/{dn_detr.SHIPPED[meta["model"]["method"]]}'
    return _CONFIGS[system]
