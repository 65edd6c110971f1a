"""The detectors compute what the official implementations compute."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from project.models.task_modules.set_prediction import Predictions
from tests.helpers.golden_runs import recorded_matches, set_progress
from tests.helpers.golden_systems import Match
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
    results, head_inputs = golden.system.run(golden, model, images)
    check_outputs(golden, 'out', results)
    check_detections(golden, model, results)
    if 'post.scores' in golden.arrays:  # of all images together
        found = golden.system.detections(golden, model, head_inputs)
        check_outputs(golden, 'post', found)
    for image in images:
        if f'single.logits.{image}' in golden.arrays:
            check_single(golden, model, image)


def check_detections(
    golden: Golden, model: nn.Module, results: dict[str, Tensor]
) -> None:
    sizes = golden.system.output_sizes(golden.meta)
    shapes = golden.meta['input']['img_shapes']
    metas = [
        dict(img_shape=(height, width), scale_factor=(width / w, height / h))
        for (height, width), (h, w) in zip(shapes, sizes, strict=False)
    ]
    if not metas:
        return
    detections = model.bbox_head.predict_by_feat(
        results['logits'][-1], results['boxes'][-1], metas
    )
    for i, found in enumerate(detections):
        golden.compare(f'post.scores.{i}', found.scores)
        golden.compare(f'post.labels.{i}', found.labels)
        golden.compare(f'post.boxes.{i}', found.bboxes)


def check_single(golden: Golden, model: nn.Module, image: int) -> None:
    """An image by itself, without the padding of its batch."""
    results, _ = golden.system.run(golden, model, [image])
    for name in ('logits', 'boxes'):
        golden.compare(f'single.{name}.{image}', results[name][-1, 0])


def check_training(
    golden: Golden, model: nn.Module, names: dict[str, str]
) -> None:
    images = list(range(len(golden.meta['input']['img_shapes'])))
    results, head_inputs = golden.system.run(golden, model, images)
    check_outputs(golden, 'train', results)
    without = 'no gradients recorded' in golden.meta.get('notes', ())
    assert without or any(n.startswith('grad.') for n in golden.arrays)
    for kind, iteration in golden.system.loss_kinds(golden.meta).items():
        set_progress(iteration)
        with recorded_matches() as matches:
            losses = model.bbox_head.loss(
                **head_inputs, batch_data_samples=golden.samples(images)
            )
        check_matches(golden, kind, matches)
        check_losses(golden, kind, losses)
        if any(name.startswith(f'{kind}grad.') for name in golden.arrays):
            model.zero_grad()
            total(losses).backward(retain_graph=True)
            check_gradients(golden, kind, model, names)


def check_outputs(
    golden: Golden, stage: str, results: dict[str, Tensor]
) -> None:
    matches = tuple(f'{stage}.{what}' for what in ('match.', 'stg1.', 'stg2.'))
    expected = [
        name
        for name in golden.arrays
        if name.startswith(f'{stage}.') and not name.startswith(matches)
    ]
    assert expected or stage == 'train'
    for name in expected:
        short = name.removeprefix(f'{stage}.')
        if short == 'match':  # see check_matches
            continue
        result = results[short]
        if short in ('topk', 'topk_indices'):
            # Padded points are alike, their order means nothing: compare
            # the scores of what was chosen.
            scores = results['enc_logits'][..., 0].cpu()
            chosen = torch.from_numpy(golden.arrays[name]).long()
            gap = scores.gather(1, chosen) - scores.gather(1, result.cpu())
            if not gap.abs().max() <= golden.meta['tolerance']['out']:
                golden.mismatches.append(f'{name}: other proposals chosen')
        else:
            golden.compare(name, result, results.get(f'{short}.where'))


def check_matches(
    golden: Golden, kind: str, matches: dict[str, tuple]
) -> None:
    """Each target is matched to the same queries, or to identical ones."""
    for match in golden.system.matches(golden.meta, golden.arrays, kind):
        predictions, pairs = matches[match.prefix]
        here = (pairs.layer == match.layer) & (pairs.image == match.image)
        offset = sum(
            len(target['labels'])
            for target in golden.meta['targets'][: match.image]
        )
        expected = _matched_rows(
            predictions, match, match.queries, match.targets
        )
        ours = _matched_rows(
            predictions, match, pairs.query[here], pairs.target[here] - offset
        )
        if ours.shape != expected.shape or not torch.allclose(
            ours, expected, rtol=0, atol=1e-6
        ):
            golden.mismatches.append(f'{match.name}: other pairs')


def _matched_rows(
    predictions: Predictions, match: Match, queries: Tensor, gts: Tensor
) -> Tensor:
    """Target, box and best score of each pair, in an order of their own."""
    place = match.layer, match.image, queries
    boxes = predictions.bbox_preds[place].detach()
    scores = predictions.cls_scores[place].detach()
    columns = (gts[:, None], boxes, scores.amax(1, keepdim=True))
    rows = torch.cat([column.cpu() for column in columns], 1)
    order = sorted(
        range(len(rows)), key=lambda i: rows[i].round(decimals=6).tolist()
    )
    return rows[order]


def check_losses(golden: Golden, kind: str, losses: dict[str, Tensor]) -> None:
    tolerance = golden.meta['tolerance']['loss_relative']
    weights = golden.meta['losses']
    ours = {golden.system.loss_name(name): name for name in weights}
    assert losses.keys() == ours.keys()
    for name, value in losses.items():
        source = ours[name]
        is_list = isinstance(value, list)
        for image, number in enumerate(value if is_list else [value]):
            golden.compare_relative(
                f'{kind}loss.{source.removeprefix("loss.")}',
                number.item() / weights[source],
                tolerance,
                floor=1e-6,
                place=(image,) if is_list else (),
            )
    golden.compare_relative(
        f'{kind}loss.total', total(losses).item(), tolerance
    )


def total(losses: dict[str, Tensor | list[Tensor]]) -> Tensor:
    """Sum of the losses; some are lists of one for each image."""
    return sum(
        sum(value) if isinstance(value, list) else value
        for value in losses.values()
    )


def check_elements(
    golden: Golden, kind: str, source: str, parameter: nn.Parameter
) -> None:
    """Elements of a gradient, where the golden has them: the first few.

    They are in the order of the source's tensor, so a parameter that the
    converter lays out otherwise (some of Swin's) cannot be compared.
    """
    name = f'{kind}gradhead.{source}'
    if name not in golden.arrays or not golden.is_laid_out_alike(source):
        return
    gradient = parameter.grad
    if name not in golden.meta.get('subsample', {}):
        gradient = gradient.flatten()[: golden.arrays[name].size]
    golden.compare_elements(name, gradient)


def check_gradients(
    golden: Golden, kind: str, model: nn.Module, names: dict[str, str]
) -> None:
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }
    expected = [n for n in golden.arrays if n.startswith(f'{kind}grad.')]
    largest = max(float(golden.arrays[name]) for name in expected)
    seen = set()
    for name in expected:
        parameter = parameters[names[name.removeprefix(f'{kind}grad.')]]
        seen.add(id(parameter))
        check_elements(golden, kind, name.partition('grad.')[2], parameter)
        golden.compare_relative(
            name,
            parameter.grad.norm().item(),
            golden.meta['tolerance']['grad_relative'],
            floor=1e-9 * largest / golden.meta['tolerance']['grad_relative'],
        )
    trained = {id(parameter) for parameter in parameters.values()}
    assert seen == trained, f'{len(trained ^ seen)} other parameters train'
