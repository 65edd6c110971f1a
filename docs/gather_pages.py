# Copyright (c) mmdetr authors. All rights reserved.
"""Gathers the pages of the site from where they lie in the repository.

A hook of MkDocs. Its pages keep the paths that they have here, so that each
link between them is right on the site as it is in a checkout.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = ('*.md', 'docs/*.md', 'backbone_pth/README.md')
METHODS = 'configs/*/README.md'
# Sphinx' ways to name a page and an object: `text <url>`_, :class:`~a.Name`.
LINK = re.compile(r'<code>([^<&]+?)\s+&lt;(https?://[^<&]+)&gt;</code>__?')
ROLE = re.compile(r':[a-z]+:<code>~?(?:[\w.]+\.)?(\w+)</code>')
# What pages show or link to.
LINKED = (
    'LICENSE',
    'docs/images/*',
    'docs/notebooks/*',
    'configs/**/*.p[yn]*',
    'configs/*/*.yml',
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of docs_dir by those of the repository.

    Args:
        files: Of docs_dir, and those that the theme adds.
        config: Of MkDocs.

    Returns:
        Files: The pages, and what they link to.
    """
    docs = Path(config.docs_dir)
    kept = [file for file in files if not _lies_in(file, docs)]
    found = sorted(
        path
        for pattern in (*PAGES, METHODS, *LINKED)
        for path in ROOT.glob(pattern)
        if path.is_file()
    )
    return Files([*kept, *(_file(path, config) for path in found)])


def on_page_content(html: str, **_: object) -> str:
    """Turn what docstrings mark for Sphinx into code and links.

    Args:
        html: Of a page.

    Returns:
        str: Without Sphinx' marks.
    """
    html = LINK.sub(r'<a href="\2">\1</a>', html)
    return ROLE.sub(r'<code>\1</code>', html)


def _lies_in(file: File, folder: Path) -> bool:
    path = file.abs_src_path
    return path is not None and Path(path).is_relative_to(folder)


def _file(path: Path, config: MkDocsConfig) -> File:
    uri = path.relative_to(ROOT).as_posix()
    return File.generated(config, uri, abs_src_path=str(path))
