# Copyright (c) mmdetr authors. All rights reserved.
"""Reports on the environment: ``python -m project.env``.

One line for each thing that the package needs, and below what to do about
each that is amiss. The exit status is 1 if something keeps it from running.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from project.utils.environment import Finding, inspect_environment


def format_report(findings: Sequence[Finding]) -> str:
    """Lay the findings out as a table, the problems below it.

    Args:
        findings (Sequence[Finding]): What was found, in order.

    Returns:
        str: The report, without a trailing newline.
    """
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


def main() -> int:
    """Print the report.

    Returns:
        int: Exit status, 1 if the package cannot run here.
    """
    findings = inspect_environment()
    print(format_report(findings))
    return int(any(finding.is_fatal for finding in findings))


if __name__ == '__main__':
    sys.exit(main())
