# Copyright (c) mmdetr authors. All rights reserved.
"""Write README.md's table of models from the metafiles of the configs.

Models are listed if their ``Metadata`` has ``Zoo``, the contents of the row.
"""

import argparse
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from _arguments import HelpFormatter

ROOT = Path(__file__).resolve().parents[2]
BEGIN = (
    '<!-- models: tools/analysis_tools/model_zoo.py writes this table -->\n'
)
END = '<!-- end of models -->\n'
COLUMNS = (
    'Method',
    'Backbone',
    'Queries',
    'Epochs',
    'Params (M)',
    'GFLOPs',
    'AP',
    'Config',
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=HelpFormatter
    )
    parser.add_argument(
        '--count',
        action='store_true',
        help='first count parameters and operations and write them to the '
        'metafiles, which takes some seconds per model',
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table, and the metafiles if asked to."""
    args = parse_args(argv)
    if args.count:
        for model in shown_models():
            write_counts(model, *count(model['Config']))
    path = ROOT / 'README.md'
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f'{before}{BEGIN}{table()}{END}{after}')


def shown_models() -> Iterator[dict[str, Any]]:
    """Read the models of the table, in the order of model-index.yml."""
    from mmengine.fileio import load

    for name in load(ROOT / 'model-index.yml')['Import']:
        for model in load(ROOT / name)['Models']:
            if 'Zoo' in model['Metadata']:
                yield model | {'Metafile': name}


def table() -> str:
    """Make the table, in Markdown."""
    rows = [COLUMNS, ('---',) * len(COLUMNS), *map(_row, shown_models())]
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    about = model['Metadata']
    zoo = about['Zoo']
    ap = model['Results'][0]['Metrics']['box AP']
    note = f' ({zoo["Note"]})' if 'Note' in zoo else ''
    return (
        zoo['Method'],
        zoo['Backbone'],
        str(zoo['Queries']),
        str(about['Epochs']),
        f'{about["Parameters (M)"]:.0f}',
        f'{about["FLOPs (G)"]:.0f}',
        f'{ap:.1f}{note}',
        f'[config]({model["Config"]})',
    )


def count(path: str) -> tuple[int, int]:
    """Count parameters, and operations at 800 x 1333, of a config's model."""
    from mmengine.config import Config

    model = Config.fromfile(ROOT / path).model
    return _count_once(Config(dict(model=model)).dump())


@functools.cache
def _count_once(text: str) -> tuple[int, int]:
    """Many configs differ in their schedule or data only."""
    from _complexity import count as count_all
    from mmengine.config import Config

    found = count_all(Config.fromstring(text, '.py'), (800, 1333))
    return found.parameters, found.operations


def write_counts(
    model: dict[str, Any], parameters: int, operations: int
) -> None:
    """Write what was counted into the metafile, below ``Zoo``.

    Args:
        model: As :func:`shown_models` reads it.
        parameters: How many it has.
        operations: How many it takes for an image.
    """
    lines = (
        f'      Parameters (M): {parameters / 1e6:.1f}\n'
        f'      FLOPs (G): {operations / 1e9:.1f}\n'
    )
    print(f'{model["Name"]}\n{lines}', end='', flush=True)
    path = ROOT / model['Metafile']
    name = re.escape(model['Name'])
    pattern = (
        rf'(  - Name: {name}\n(?:    .*\n)*?      Zoo: .*\n)'
        r'(?:      (?:Parameters \(M\)|FLOPs \(G\)): .*\n)*'
    )
    text, number = re.subn(
        pattern, lambda m: m[1] + lines, path.read_text(), count=1
    )
    assert number == 1, f'{path}: no line "Zoo: ..." of {model["Name"]}'
    path.write_text(text)


if __name__ == '__main__':
    main()
