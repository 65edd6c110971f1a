"""The Slurm scripts, with an ``srun`` that starts its tasks right here."""

import sys
from pathlib import Path

import pytest

from tests.helpers.hooks import read_losses
from tests.helpers.training import TOY_CONFIG, WATCHED_CONFIG, run_tool

SRUN = """\
#!{python}
import os, subprocess, sys
end = next(i for i, word in enumerate(sys.argv) if word.endswith('python'))
options, command = sys.argv[1:end], sys.argv[end:]
with open({log!r}, 'w') as file:
    print(*options, '|', *command[1:], sep='\\n', file=file)
if not os.path.isdir({work_dir!r}):
    sys.exit(5)
tasks = [
    subprocess.Popen(command, env={{
        **os.environ,
        'SLURM_PROCID': str(rank),
        'SLURM_LOCALID': str(rank),
        'SLURM_NTASKS': '2',
        'SLURM_NNODES': '1',
        'SLURM_NODELIST': 'here',
    }})
    for rank in (0, 1)
]
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def srun(tmp_path: Path) -> dict[str, str]:
    """Variables under which the scripts find the ``srun`` above."""
    path = tmp_path / 'bin' / 'srun'
    path.parent.mkdir()
    path.write_text(
        SRUN.format(
            python=sys.executable,
            log=str(tmp_path / 'log'),
            work_dir=str(tmp_path / 'work'),
        )
    )
    path.chmod(0o755)
    return dict(PATH=f'{path.parent}:/usr/local/bin:/usr/bin:/bin')


@pytest.mark.slow
def test_two_tasks_train_together(
    toy_data: Path, tmp_path: Path, srun: dict[str, str]
) -> None:
    work_dir = tmp_path / 'work'
    work_dir.mkdir()
    result = run_tool(
        'tools/slurm_train.sh',
        'queue',
        'a job',
        WATCHED_CONFIG,
        work_dir,
        '--cfg-options',
        f'data_root={toy_data}',
        'train_cfg.max_epochs=1',
        env=dict(srun, GPUS='2'),
    )
    assert result.returncode == 0, result.stderr
    options = (tmp_path / 'log').read_text().split('\n|\n')[0].splitlines()
    assert options == [
        '-p',
        'queue',
        '--job-name=a job',
        '--gres=gpu:2',
        '--ntasks=2',
        '--ntasks-per-node=2',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
    ]
    first, second = (read_losses(work_dir, rank) for rank in (0, 1))
    # 8 images in batches of 4: each process has half of them.
    assert len(first) == len(second) == 1
    assert first != second
    assert (work_dir / 'epoch_1.pth').exists()


def test_variables_and_the_exit_status_pass_through(
    tmp_path: Path, srun: dict[str, str]
) -> None:
    result = run_tool(
        'tools/slurm_test.sh',
        'queue',
        'job',
        TOY_CONFIG,
        'x.pth',
        '--out',
        'a file.pkl',
        env=dict(
            srun,
            GPUS='16',
            GPUS_PER_NODE='4',
            CPUS_PER_TASK='3',
            SRUN_ARGS='--time=1 --mem=2',
        ),
    )
    assert result.returncode == 5
    options, command = (tmp_path / 'log').read_text().split('\n|\n')
    assert options.splitlines()[3:] == [
        '--gres=gpu:4',
        '--ntasks=16',
        '--ntasks-per-node=4',
        '--cpus-per-task=3',
        '--kill-on-bad-exit=1',
        '--time=1',
        '--mem=2',
    ]
    assert command.splitlines()[2:] == [
        '--launcher=slurm',
        str(TOY_CONFIG),
        'x.pth',
        '--out',
        'a file.pkl',
    ]
