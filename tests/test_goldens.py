"""The detectors compute what the official implementations compute."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import project  # noqa: F401
from tests.helpers.golden_runs import recorded_matches, run_stages
from tests.helpers.goldens import Golden


def test_golden(golden_stem: Path, device: str) -> None:
    golden = Golden(golden_stem, device)
    model, names = golden.build()
    check_evaluation(golden, model.eval())
    check_training(golden, model.train(), names)
    if golden.mismatches:
        lines = '\n  '.join(golden.mismatches)
        count = len(golden.mismatches)
        pytest.fail(f'{golden_stem.name}: {count} mismatches\n  {lines}')


@torch.no_grad()
def check_evaluation(golden: Golden, model: nn.Module) -> None:
    images = golden.system.evaluated_images(golden.meta)
    samples = golden.samples(images)
    results, _ = run_stages(model, golden.image(images), samples)
    check_outputs(golden, 'out', results)
    sizes = golden.meta.get('post', {}).get('target_sizes', [])
    metas = [
        dict(
            img_shape=sample.img_shape,
            scale_factor=(sample.img_shape[1] / w, sample.img_shape[0] / h),
        )
        for sample, (h, w) in zip(samples, sizes, strict=False)
    ]
    if not metas:
        return
    model.bbox_head.test_cfg.clip_bboxes = False
    detections = model.bbox_head.predict_by_feat(
        results['logits'][-1], results['boxes'][-1], metas
    )
    for i, found in enumerate(detections):
        golden.compare(f'post.scores.{i}', found.scores)
        golden.compare(f'post.labels.{i}', found.labels)
        golden.compare(f'post.boxes.{i}', found.bboxes)


def check_training(
    golden: Golden, model: nn.Module, names: dict[str, str]
) -> None:
    images = list(range(len(golden.meta['input']['img_shapes'])))
    samples = golden.samples(images)
    results, head_inputs = run_stages(model, golden.image(images), samples)
    num_queries = model.num_queries
    for name in ('logits', 'boxes'):
        results[f'{name}_one2many'] = results[name][:, :, num_queries:]
        results[name] = results[name][:, :, :num_queries]
    check_outputs(golden, 'train', results)
    with recorded_matches() as matches:
        losses = model.bbox_head.loss(
            **head_inputs, batch_data_samples=samples
        )
    check_matches(golden, matches)
    check_losses(golden, losses)
    sum(losses.values()).backward()
    check_gradients(golden, model, names)


def check_outputs(
    golden: Golden, stage: str, results: dict[str, Tensor]
) -> None:
    expected = [n for n in golden.arrays if n.startswith(f'{stage}.')]
    assert expected or stage == 'train'
    for name in expected:
        result = results[name.removeprefix(f'{stage}.')]
        if name.endswith('.topk_indices'):
            # Padded points are alike, their order means nothing: compare
            # the scores of what was chosen.
            scores = results['enc_logits'][..., 0].cpu()
            chosen = torch.from_numpy(golden.arrays[name]).long()
            gap = scores.gather(1, chosen) - scores.gather(1, result.cpu())
            if not gap.abs().max() <= golden.meta['tolerance']['out']:
                golden.mismatches.append(f'{name}: other proposals chosen')
        else:
            golden.compare(name, result)


def check_matches(golden: Golden, matches: dict[str, tuple]) -> None:
    """Each target is matched to the same queries, or to identical ones."""
    for name in (n for n in golden.arrays if n.startswith('match.')):
        group, image = name.removeprefix('match.').rsplit('.img', 1)
        prefix, layer = golden.system.match_name(group)
        predictions, pairs = matches[prefix]
        here = (pairs.layer == layer) & (pairs.image == int(image))
        offset = sum(
            len(target['labels'])
            for target in golden.meta['targets'][: int(image)]
        )
        queries, targets = torch.from_numpy(golden.arrays[name]).long()
        expected = _matched_rows(
            predictions, layer, int(image), queries, targets
        )
        ours = _matched_rows(
            predictions,
            layer,
            int(image),
            pairs.query[here],
            pairs.target[here] - offset,
        )
        if ours.shape != expected.shape or not torch.allclose(
            ours, expected, rtol=0, atol=1e-6
        ):
            golden.mismatches.append(f'{name}: other pairs')


def _matched_rows(
    predictions: object, layer: int, image: int, queries: Tensor, gts: Tensor
) -> Tensor:
    """Target, box and best score of each pair, in an order of their own."""
    boxes = predictions.bbox_preds[layer, image, queries].detach()
    scores = predictions.cls_scores[layer, image, queries].detach()
    columns = (gts[:, None], boxes, scores.amax(1, keepdim=True))
    rows = torch.cat([column.cpu() for column in columns], 1)
    order = sorted(
        range(len(rows)), key=lambda i: rows[i].round(decimals=6).tolist()
    )
    return rows[order]


def check_losses(golden: Golden, losses: dict[str, Tensor]) -> None:
    tolerance = golden.meta['tolerance']['loss_relative']
    weights = golden.meta['losses']
    ours = {golden.system.loss_name(name): name for name in weights}
    assert losses.keys() == ours.keys()
    for name, value in losses.items():
        source = ours[name]
        golden.compare_relative(
            f'loss.{source.removeprefix("loss.")}',
            value.item() / weights[source],
            tolerance,
            floor=1e-6,
        )
    golden.compare_relative(
        'loss.total', sum(losses.values()).item(), tolerance
    )


def check_gradients(
    golden: Golden, model: nn.Module, names: dict[str, str]
) -> None:
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }
    expected = [n for n in golden.arrays if n.startswith('grad.')]
    largest = max(float(golden.arrays[name]) for name in expected)
    seen = set()
    for name in expected:
        parameter = parameters[names[name.removeprefix('grad.')]]
        seen.add(id(parameter))
        golden.compare_relative(
            name,
            parameter.grad.norm().item(),
            golden.meta['tolerance']['grad_relative'],
            floor=1e-9 * largest / golden.meta['tolerance']['grad_relative'],
        )
    trained = {id(parameter) for parameter in parameters.values()}
    assert seen == trained, f'{len(trained ^ seen)} other parameters train'
