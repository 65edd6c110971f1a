"""A training that was killed goes on as if it had not been."""

from pathlib import Path

import torch
from mmengine.registry import RUNNERS

import project  # noqa: F401  registers the runner
from tests.helpers.hooks import read_losses
from tests.helpers.training import WATCHED_CONFIG, run_tool, toy_config


def test_resuming_gives_the_weights_of_never_having_stopped(
    toy_data: Path, tmp_path: Path
) -> None:
    unbroken, broken = tmp_path / 'unbroken', tmp_path / 'broken'
    RUNNERS.build(toy_config(toy_data, unbroken, WATCHED_CONFIG)).train()

    command = ('dist_train.sh', WATCHED_CONFIG, '1', broken)
    options = ('--cfg-options', f'data_root={toy_data}')
    # Iteration 3 is the second one of the second epoch.
    result = run_tool(*command, *options, env=dict(KILL_AT='3'))
    assert result.returncode == -9
    assert len(read_losses(broken, rank=0)) == 3
    assert (broken / 'last_checkpoint').read_text().endswith('epoch_1.pth')

    result = run_tool(*command, '--resume', *options)
    assert result.returncode == 0, result.stderr
    assert 'resumed at iteration 2, epoch 1' in result.stdout
    expected_losses = read_losses(unbroken, rank=0)
    assert len(expected_losses) == 6
    # The third iteration was done twice.
    assert read_losses(broken, rank=0)[3:] == expected_losses[2:]
    expected, resumed = (
        torch.load(folder / 'epoch_3.pth') for folder in (unbroken, broken)
    )
    torch.testing.assert_close(
        resumed['state_dict'], expected['state_dict'], rtol=0, atol=0
    )
    torch.testing.assert_close(
        resumed['optimizer']['state'],
        expected['optimizer']['state'],
        rtol=0,
        atol=0,
    )
    assert resumed['param_schedulers'] == expected['param_schedulers']
