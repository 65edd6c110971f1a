# Copyright (c) mmdetr authors. All rights reserved.
"""Draws each method's idea as docs/images/<method>.svg.

``python docs/draw_methods.py`` writes them anew.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from svg_picture import GREY, PALE, Picture

IMAGES = Path(__file__).resolve().parent / 'images'
BLUE, LIGHT_BLUE = '#1565c0', '#bbdefb'
GREEN, LIGHT_GREEN = '#2e7d32', '#c8e6c9'
ORANGE, LIGHT_ORANGE = '#e65100', '#ffe0b2'
VIOLET, LIGHT_VIOLET = '#6a1b9a', '#e1bee7'


def h_detr() -> Picture:
    """Two groups of queries, matched differently."""
    p = Picture(760, 330, 'H-DETR: hybrid matching of two groups of queries')
    p.box(20, 70, 120, 60, PALE, text='proposals,\nbest first')
    for y, color, light, number, at_test in (
        (40, BLUE, LIGHT_BLUE, '300 queries', 'in training and at test time'),
        (190, ORANGE, LIGHT_ORANGE, '1500 queries', 'in training only'),
    ):
        p.box(190, y, 190, 100, light, color, dashed=number == '1500 queries')
        p.text(285, y + 24, number, bold=True)
        p.dots(213, y + 52, [color] * 8)
        p.text(285, y + 84, at_test, size=12)
    p.arrow((140, 90), (190, 90))
    p.arrow((80, 130), (80, 240), (190, 240))
    p.text(100, 262, 'the next ranks', size=12)
    p.text(285, 168, 'the same decoder; no attention between them', size=12)
    for number in range(3):
        y = 60 + number * 30
        p.dot(420, y, BLUE)
        p.arrow((428, y), (520, y), stroke=BLUE)
        p.box(525, y - 11, 80, 22, LIGHT_GREEN, GREEN, f'object {number + 1}')
    p.text(685, 95, 'one-to-one:\nno duplicates,\nso no NMS', size=13)
    for number in range(3):
        top = 190 + number * 36
        for copy in range(3):
            y = top + copy * 10 + 2
            p.dot(420, y, ORANGE, 4)
            p.arrow((426, y), (520, top + 12), stroke=ORANGE, tip=False)
        p.box(525, top, 80, 24, LIGHT_GREEN, GREEN, f'object {number + 1}')
    p.text(
        685,
        240,
        'one-to-many:\neach object\n6 times, for more\nto learn from',
        size=13,
    )
    return p


def rank_detr() -> Picture:
    """Queries are sorted, and know their rank."""
    p = Picture(760, 320, 'Rank-DETR: queries in the order of their boxes')
    p.box(20, 90, 110, 60, PALE, text='decoder\nlayer')
    p.arrow((130, 120), (160, 120))
    scores = (40, 90, 25, 70, 55)
    _bars(p, 165, scores)
    p.text(220, 190, 'queries after\nthe layer', size=12)
    p.arrow((280, 120), (385, 120))
    p.text(332, 92, 'sort by\nconfidence', VIOLET, size=13, bold=True)
    _bars(p, 395, sorted(scores, reverse=True))
    for number in range(5):
        p.text(405 + number * 23, 42, f'+r{number + 1}', VIOLET, size=11)
    p.text(450, 190, 'by rank, with a learned\ncontent for each rank', size=12)
    p.arrow((515, 120), (580, 120))
    p.box(
        585,
        90,
        155,
        60,
        LIGHT_VIOLET,
        VIOLET,
        'class logits +\nbias of the rank',
    )
    p.box(20, 225, 350, 75, LIGHT_GREEN, GREEN)
    p.text(195, 248, 'target of a matched query', bold=True)
    p.text(195, 276, '(GIoU of its own box + 1) / 2, not 1')
    p.box(390, 225, 350, 75, LIGHT_ORANGE, ORANGE)
    p.text(565, 248, 'matching, last quarter of training', bold=True)
    p.text(565, 276, 'by class probability x IoU⁴ alone')
    return p


def _bars(p: Picture, x: float, heights: Sequence[int]) -> None:
    """Draw confidences."""
    for number, height in enumerate(heights):
        left = x + number * 23
        p.box(left, 150 - height, 18, height, LIGHT_BLUE, BLUE, radius=2)
    p.arrow((x - 4, 150), (x + 115, 150), tip=False)


def deta() -> Picture:
    """One box of an object, or all that overlap it."""
    p = Picture(760, 330, 'DETA: assignment by IoU, and NMS')
    boxes = (
        (0, 0, 120, 100, '0.9'),
        (-14, 10, 120, 96, '0.8'),
        (14, -12, 112, 104, '0.7'),
        (-6, -18, 134, 122, '0.7'),
        (62, 52, 118, 84, '0.3'),
    )
    panels = (
        (
            70,
            'improved baseline',
            'one-to-one matching:\none box learns it',
            1,
        ),
        (
            320,
            'DETA, training',
            'IoU of 0.6 and more:\nup to 4 boxes learn it',
            4,
        ),
        (570, 'DETA, detecting', 'non-maximum suppression\nkeeps the best', 1),
    )
    for x, title, text, number in panels:
        p.text(x + 65, 34, title, bold=True, size=16)
        p.box(x, 90, 120, 100, LIGHT_GREEN, LIGHT_GREEN, 'object')
        for index, (dx, dy, width, height, iou) in enumerate(boxes):
            is_learning = index < number
            if number == 1 and x > 500 and index == 4:
                continue
            color = BLUE if is_learning else GREY
            p.box(
                x + dx,
                90 + dy,
                width,
                height,
                'none',
                color,
                dashed=not is_learning,
                radius=2,
            )
            if x < 500 and index in (0, 4):
                p.text(
                    x + dx + width - 14,
                    90 + dy + height - 6,
                    iou,
                    color,
                    size=12,
                )
        p.text(x + 65, 285, text, size=13)
    p.arrow((503, 140), (540, 140))
    return p


def dn_detr() -> Picture:
    """Noised ground truth beside the queries, and who sees whom."""
    p = Picture(760, 330, 'DN-DETR: denoising queries beside the matched ones')
    p.text(120, 34, 'ground truth', bold=True)
    p.box(60, 60, 120, 90, LIGHT_GREEN, GREEN, 'cat')
    p.text(120, 190, '+ noise: shift,\nscale, another label', size=13)
    for dx, dy, width, height, label in (
        (-16, 10, 118, 96, ''),
        (14, -12, 104, 84, ''),
    ):
        p.box(
            60 + dx, 60 + dy, width, height, 'none', ORANGE, label, dashed=True
        )
    p.arrow((195, 105), (255, 105))
    p.box(260, 60, 200, 90, LIGHT_ORANGE, ORANGE)
    p.text(360, 84, 'denoising queries', bold=True)
    p.dots(290, 108, [ORANGE] * 8)
    p.text(360, 138, 'in training only', size=12)
    p.box(260, 210, 200, 90, LIGHT_BLUE, BLUE)
    p.text(360, 234, 'learned queries', bold=True)
    p.dots(290, 258, [BLUE] * 8)
    p.text(360, 288, 'they detect', size=12)
    p.text(520, 88, 'each returns\nits own object:\nno matching', size=13)
    p.text(520, 245, 'matched\nto objects', size=13)
    p.text(670, 34, 'who sees whom', bold=True)
    _mask(p, 600, 60)
    return p


def _mask(p: Picture, x: float, y: float) -> None:
    """Draw the mask of two denoising groups and the learned queries."""
    sizes = (35, 35, 70)
    colors = (LIGHT_ORANGE, LIGHT_ORANGE, LIGHT_BLUE)
    tops = (0, 35, 70)
    for row, top in enumerate(tops):
        for column, left in enumerate(tops):
            is_seen = row == column or column == 2
            p.box(
                x + left,
                y + top,
                sizes[column],
                sizes[row],
                colors[column] if is_seen else '#ffffff',
                GREY,
                radius=0,
            )
    for index, name in enumerate(('1', '2', 'learned')):
        middle = tops[index] + sizes[index] / 2
        p.text(x + middle, y + 156, name, size=12)
    p.text(
        x + 70,
        y + 192,
        'the learned ones see\nno noised ground truth',
        size=12,
    )


def anchor_detr() -> Picture:
    """Points and patterns; rows and columns."""
    p = Picture(760, 320, 'Anchor DETR: queries at anchor points')
    p.text(120, 34, 'anchor points', bold=True)
    p.box(30, 55, 180, 150, PALE)
    points = (
        (60, 85),
        (110, 75),
        (170, 95),
        (80, 140),
        (130, 150),
        (180, 165),
        (55, 185),
    )
    for x, y in points:
        p.dot(x, y, BLUE, 5)
    p.text(120, 235, 'learned, encoded\nlike the pixels', size=13)
    p.text(242, 135, 'x', size=22)
    p.text(320, 34, '3 patterns', bold=True)
    for y, width, height in ((75, 26, 26), (125, 52, 30), (180, 34, 54)):
        p.box(
            320 - width / 2,
            y - height / 2 + 10,
            width,
            height,
            LIGHT_ORANGE,
            ORANGE,
            radius=2,
        )
    p.text(320, 250, 'several objects\nat one point', size=13)
    p.arrow((375, 135), (430, 135))
    p.text(590, 34, 'row-column decoupled attention', bold=True)
    cell = 20
    for row in range(6):
        for column in range(8):
            is_weighed = row == 2 or column == 5
            p.box(
                440 + column * cell,
                60 + row * cell,
                cell,
                cell,
                LIGHT_GREEN if is_weighed else '#ffffff',
                '#b0bec5',
                radius=0,
            )
    p.box(440, 195, 160, 20, LIGHT_VIOLET, VIOLET, radius=2)
    p.text(520, 210, 'W weights', size=12)
    p.box(615, 60, 20, 120, LIGHT_VIOLET, VIOLET, radius=2)
    p.text(675, 125, 'H weights', size=12)
    p.text(
        590,
        255,
        'a query weighs the columns, then the rows:\n'
        'H + W weights instead of H x W',
        size=13,
    )
    return p


def align_detr() -> Picture:
    """The target is a mean of confidence and IoU."""
    p = Picture(760, 300, 'Align-DETR: confidence and IoU in one target')
    p.text(190, 34, 'a matched query', bold=True)
    p.box(40, 60, 150, 44, LIGHT_BLUE, BLUE, 'class probability p')
    p.box(40, 130, 150, 44, LIGHT_GREEN, GREEN, 'IoU of its box')
    p.box(
        250,
        90,
        160,
        54,
        LIGHT_VIOLET,
        VIOLET,
        'target\np^&#945; · IoU^(1 - &#945;)',
    )
    p.arrow((190, 82), (250, 105))
    p.arrow((190, 152), (250, 130))
    p.text(
        225,
        225,
        'the most accurate box becomes\nthe most confident one',
        size=13,
    )
    p.text(590, 34, 'two queries of each object', bold=True)
    p.box(470, 62, 80, 40, LIGHT_GREEN, GREEN, 'object')
    p.dot(630, 66, ORANGE)
    p.dot(630, 100, ORANGE, 4)
    p.arrow((550, 78), (622, 67), stroke=ORANGE)
    p.arrow((550, 86), (624, 99), stroke=ORANGE)
    p.text(645, 71, 'weight 1', anchor='start', size=12)
    p.text(645, 105, 'weight less', anchor='start', size=12)
    p.text(590, 135, 'in all decoder layers but the last', size=12)
    p.box(470, 170, 80, 40, LIGHT_GREEN, GREEN, 'object')
    p.dot(630, 190, BLUE)
    p.arrow((550, 190), (622, 190), stroke=BLUE)
    p.text(645, 195, 'one', anchor='start', size=12)
    p.text(590, 240, 'in the last layer, which detects', size=12)
    return p


def hpr() -> Picture:
    """Three refiners in every decoder layer."""
    p = Picture(760, 340, 'HPR: three refiners side by side in every layer')
    p.box(20, 145, 110, 50, PALE, text='queries\nand boxes')
    refiners = (
        (45, BLUE, LIGHT_BLUE, 'deformable attention', 'the base detector'),
        (
            145,
            ORANGE,
            LIGHT_ORANGE,
            'regional cross attention',
            'on RoIAlign features',
        ),
        (
            245,
            VIOLET,
            LIGHT_VIOLET,
            'dynamic convolution',
            'on RoIAlign features',
        ),
    )
    for y, color, light, name, what in refiners:
        p.box(190, y, 215, 52, light, color)
        p.text(297, y + 22, name, bold=True)
        p.text(297, y + 42, what, size=12)
        p.arrow((130, 170), (160, 170), (160, y + 26), (190, y + 26))
        p.text(690, y + 31, 'loss' if y > 50 else 'loss,\ndetections', color)
    p.arrow((405, 171), (455, 171), (455, 92), stroke=ORANGE)
    p.arrow((405, 271), (490, 271), (490, 92), stroke=VIOLET)
    p.box(435, 52, 75, 38, LIGHT_GREEN, GREEN, 'merge')
    p.text(510, 36, 'a learned weight for each channel', size=12)
    p.arrow((405, 71), (435, 71))
    p.arrow((510, 71), (640, 71))
    p.arrow((405, 181), (640, 181), stroke=ORANGE)
    p.arrow((405, 281), (640, 281), stroke=VIOLET)
    p.text(
        380,
        325,
        'in every decoder layer; the losses of the other two are '
        'for training only',
        size=12,
    )
    return p


METHODS: tuple[Callable[[], Picture], ...] = (
    h_detr,
    rank_detr,
    deta,
    dn_detr,
    anchor_detr,
    align_detr,
    hpr,
)


def main() -> None:
    """Write all pictures."""
    for method in METHODS:
        path = IMAGES / f'{method.__name__}.svg'
        path.write_text(str(method()), encoding='utf-8')


if __name__ == '__main__':
    main()
