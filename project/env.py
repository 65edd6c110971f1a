# Copyright (c) mmdetr authors. All rights reserved.
"""Reports on the environment: ``python -m project.env``.

One line for each requirement of the package, followed by the problems and
their solutions. The exit status is 1 if the package cannot run.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from project.utils.environment import Finding, inspect_environment


def format_report(findings: Sequence[Finding]) -> str:
    """Format the findings as a table, followed by the problems."""
    lines = [f'  project      {Path(__file__).resolve().parent}']
    for finding in findings:
        mark = '!' if finding.problem else ' '
        lines.append(f'{mark} {finding.name:<12} {finding.value}')
    lines.append('')
    problems = [finding for finding in findings if finding.problem]
    lines += [
        f'{"error" if finding.is_fatal else "note"}: {finding.problem}'
        for finding in problems
    ]
    if not any(finding.is_fatal for finding in problems):
        lines.append('Ready to run.')
    return '\n'.join(lines)


def inspect_attention() -> Finding:
    """Find the backend of deformable attention on this machine.

    Returns:
        Finding: With a problem if the selected backend is unavailable, or
            only the slow one is available.
    """
    # Imported here, since torch and mmcv may be missing.
    from mmengine.device import get_device

    from project.ops import describe
    from project.utils.errors import UserError

    device = get_device()
    try:
        value = describe(device)
    except UserError as error:
        return Finding('attention', 'none', str(error), is_fatal=True)
    problem = ''
    if value.startswith('pytorch; ') and device == 'cpu':
        problem = (
            "Deformable attention runs in PyTorch's form, in which training "
            'on a CPU takes 1.7 times as long: run python -m project.ops, '
            'which compiles another one in a minute.'
        )
    return Finding('attention', value, problem)


def main(arguments: Sequence[str] = ()) -> int:
    """Print the report.

    Args:
        arguments: Of the command line, which has none but ``--help``.

    Returns:
        int: Exit status, 1 if the package cannot run here.
    """
    argparse.ArgumentParser(
        prog='python -m project.env',
        description='Show what is installed, and what is wrong with it.',
        epilog='The exit status is 1 if the package cannot run.',
    ).parse_args(arguments)
    findings = inspect_environment()
    if not any(finding.is_fatal for finding in findings):
        findings.append(inspect_attention())
    print(format_report(findings))
    return int(any(finding.is_fatal for finding in findings))


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
