# Copyright (c) mmdetr authors. All rights reserved.
"""SVG pictures of boxes, dots, arrows and text."""

from collections.abc import Sequence

INK, GREY, PALE = '#263238', '#78909c', '#eceff1'


class Picture:
    """An SVG on a light card, so that it is readable on any page.

    Args:
        width: In pixels.
        height: In pixels.
        title: What it shows, for those who cannot see it.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
            f'height="{height}" viewBox="0 0 {width} {height}" role="img" '
            'font-family="Helvetica, Arial, sans-serif" font-size="14">\n'
            f'<title>{title}</title>\n'
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
            f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>\n'
        )
        self._parts: list[str] = []
        self.box(1, 1, width - 2, height - 2, '#ffffff', '#cfd8dc', radius=10)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = 'none',
        stroke: str = INK,
        text: str = '',
        *,
        radius: float = 5,
        dashed: bool = False,
    ) -> None:
        """Draw a box with lines of text in its middle."""
        dashes = ' stroke-dasharray="5 4"' if dashed else ''
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" '
            f'rx="{radius}" fill="{fill}" stroke="{stroke}" '
            f'stroke-width="1.5"{dashes}/>'
        )
        if text:
            self.text(x + width / 2, y + height / 2 + 5, text)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        fill: str = INK,
        *,
        anchor: str = 'middle',
        size: int = 14,
        bold: bool = False,
    ) -> None:
        """Write lines of text, of which the middle is at y."""
        lines = text.split('\n')
        step = size * 1.25
        weight = ' font-weight="bold"' if bold else ''
        for number, line in enumerate(lines):
            height = y + (number - (len(lines) - 1) / 2) * step
            self._parts.append(
                f'<text x="{x}" y="{height:g}" fill="{fill}" '
                f'text-anchor="{anchor}" font-size="{size}"{weight}>{line}'
                '</text>'
            )

    def arrow(
        self,
        *points: tuple[float, float],
        stroke: str = INK,
        tip: bool = True,
        dashed: bool = False,
    ) -> None:
        """Draw a line through points, with a tip at its end."""
        path = ' '.join(f'{x:g},{y:g}' for x, y in points)
        end = ' marker-end="url(#tip)"' if tip else ''
        dashes = ' stroke-dasharray="5 4"' if dashed else ''
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{stroke}" '
            f'stroke-width="1.5"{dashes}{end}/>'
        )

    def dot(self, x: float, y: float, fill: str, radius: float = 6) -> None:
        """Draw a dot."""
        self._parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius}" fill="{fill}"/>'
        )

    def dots(
        self, x: float, y: float, colors: Sequence[str], step: float = 20
    ) -> None:
        """Draw a row of dots."""
        for number, color in enumerate(colors):
            self.dot(x + number * step, y, color)

    def __str__(self) -> str:
        return f'{self._head}{chr(10).join(self._parts)}\n</svg>\n'
