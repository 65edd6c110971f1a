"""Looks at pages in a headless browser."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from PIL import Image

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
PROBE = """<script>
addEventListener('load', () => {
  document.querySelector('.sortable th:nth-child(2), li')?.click();
  const root = document.documentElement;
  const widths = [innerWidth, root.scrollWidth, root.clientWidth];
  parent.postMessage(widths.join(), '*');
});
</script></body>"""
# A window of chromium itself is never narrower than 500 pixels.
FRAME = """<!doctype html><link rel="icon" href="data:,">
<body style="margin: 0"><script>
addEventListener('message', event => {{
  document.body.dataset.probe = event.data;
}});
</script>
<iframe src="report.html" style="border: 0; width: {width}px; height: 6000px">
</iframe></body>"""


def browse(page: Path, *options: str) -> str:
    """What chromium prints about a page that has no error."""
    done = subprocess.run(
        [
            CHROMIUM,
            *('--headless', '--no-sandbox', '--disable-gpu'),
            *('--enable-logging=stderr', '--virtual-time-budget=5000'),
            f'--user-data-dir={page.parent / "profile"}',
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ':CONSOLE' not in done.stderr, done.stderr
    return done.stdout


def check_fits(text: str, folder: Path) -> None:
    """A page is as wide as a screen or a phone, and has no error.

    Pictures of it are kept in the folder of the environment's SCREENSHOTS.

    Args:
        text: The page, in which something is clicked at.
        folder: Gets the page and its pictures.
    """
    page = text.replace('</body>', PROBE)
    (folder / 'report.html').write_text(page, encoding='utf-8')
    for width in (1400, 390):
        frame = folder / f'frame_{width}.html'
        frame.write_text(FRAME.format(width=width))
        shown = browse(frame, '--dump-dom')
        numbers = re.search(r'data-probe="([\d,]+)"', shown)[1]
        inner, scroll, client = map(int, numbers.split(','))
        assert inner == width
        assert scroll <= client
        picture = folder / f'report_{width}.png'
        size = f'--window-size={width},6000'
        browse(frame, size, f'--screenshot={picture}')
        with Image.open(picture) as shot:
            colors = shot.convert('RGB').getcolors(1 << 24)
        assert len(colors) > 100
        if kept := os.environ.get('SCREENSHOTS'):
            Path(kept).mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, Path(kept, f'{folder.name}_{width}.png'))
