"""What matching and losses take of a training step is timed."""

import re

import pytest
import torch

from tests.helpers.toy import build_model, toy_batch, toy_model_config
from tests.helpers.training import TOY_CONFIG, load_tool

benchmark = load_tool('analysis_tools/benchmark_training_loss')
benchmarking = load_tool('analysis_tools/_benchmarking')
R50 = 'deta/deta_r50_5scale_8xb2-12e_coco.py'


def test_table(capsys: pytest.CaptureFixture) -> None:
    benchmark.main(
        [
            *(str(TOY_CONFIG), '--shape', '64', '96', '--gts', '3'),
            *('--repeats', '2', '--device', 'cpu'),
        ]
    )
    row = re.search(
        r'([\d.]+) \| +([\d.]+) \| +([\d.]+)% \| +([\d.]+) \| 1: .*toy',
        capsys.readouterr().out,
    )
    step, losses, share, ratio = map(float, row.groups())
    assert 0 < losses < step
    assert 0 < share < 100
    assert ratio == 1


def test_gradients_are_those_of_the_losses() -> None:
    """The step that is timed is a step of the training."""
    config = toy_model_config(R50)
    plain, timed = build_model(config).train(), build_model(config).train()
    timer = benchmarking.TimedCriterion(
        timed.bbox_head.criterion, benchmarking.Clock('cpu')
    )
    timed.bbox_head.criterion = timer
    for model in (plain, timed):
        benchmarking.train_step(model, *toy_batch())
    assert len(timer.seconds) == 1
    for name, parameter in plain.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(
                timed.get_parameter(name).grad,
                parameter.grad,
                rtol=1e-3,
                atol=1e-5,
            )


def test_missing_config_is_named() -> None:
    with pytest.raises(SystemExit, match=r'Error: The config no\.py does no'):
        benchmark.main(['no.py'])
