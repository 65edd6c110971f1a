# Copyright (c) mmdetr authors. All rights reserved.
"""A page in the browser to try detectors on; needs the extra ``app``."""

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from project.apis.bulk.distributed import Processes
from project.apis.bulk.run import Options
from project.apis.bulk.whole import Request, detect_job, labels_of
from project.apis.detections import Detections
from project.apis.detectors import (
    DEFAULT_SCORE_THR,
    Detector,
    num_layers_to_choose,
)
from project.utils.errors import UserError

if TYPE_CHECKING:
    import gradio

_DAY = 86_400
"""Seconds that Gradio keeps what was uploaded and shown."""
_COLUMNS = ['class', 'score', 'x1', 'y1', 'x2', 'y2']


class Playground:
    """Detectors, and what the page shows of them.

    Args:
        detectors: Detectors by the names that the page shows.
    """

    def __init__(self, detectors: Mapping[str, Detector]) -> None:
        self.detectors = dict(detectors)
        # Moving the threshold detects nothing anew.
        self._predictions = functools.lru_cache(8)(self._predict)
        self._videos = tempfile.TemporaryDirectory(prefix='mmdetr-app-')

    def detect(
        self,
        name: str,
        image: str,
        score_thr: float = DEFAULT_SCORE_THR,
        classes: Sequence[str] = (),
        layer: int | None = None,
        shows_queries: bool = False,
    ) -> tuple[Image.Image, list[list]]:
        """Detect objects in an image.

        Args:
            name: Name of the detector.
            image: Path of the image.
            score_thr: The lowest score that is shown, from 0 to 1.
            classes: Names of the classes that are shown; all if empty.
            layer: Decoder layer that detects, from 1. By default the last.
            shows_queries: Whether to mark the centres of all predictions.

        Returns:
            tuple[PIL.Image, list[list]]: The picture, and class, score and
            box (x1, y1, x2, y2) of each detection, best first.

        Raises:
            UserError: If the image cannot be read.
        """
        found = self._predictions(name, image, layer)
        shown = found.above(score_thr, self._labels(name, classes))
        picture = shown.plot()
        if shows_queries:
            _mark_centres(picture, found)
        boxes = shown.boxes.round().astype(int).tolist()
        scores = shown.scores.astype(float).round(3).tolist()
        rows = zip(shown.names, scores, boxes, strict=True)
        return picture, [[name, score, *box] for name, score, box in rows]

    def annotate(
        self,
        name: str,
        video: str,
        score_thr: float = DEFAULT_SCORE_THR,
        classes: Sequence[str] = (),
    ) -> str:
        """Detect objects in a video.

        Returns:
            str: Path of a video with the detections drawn, which is removed
            when the process ends.

        Raises:
            UserError: If the video cannot be read.
        """
        out = tempfile.mkdtemp(dir=self._videos.name)
        request = Request([video], out, ['pictures'], {})
        options = Options(score_thr, self._labels(name, classes))
        detect_job(self.detectors[name], request, options, Processes())
        videos = list(Path(out).rglob('*.mp4'))
        if not videos:
            raise UserError(f'{Path(video).name} cannot be read as a video.')
        return str(videos[0])

    def _predict(self, name: str, image: str, layer: int | None) -> Detections:
        return self.detectors[name](image, 0.0, num_decoder_layers=layer)

    def _labels(self, name: str, classes: Sequence[str]) -> list[int] | None:
        known = self.detectors[name].classes
        return labels_of(classes, known) if classes else None


def _mark_centres(picture: Image.Image, found: Detections) -> None:
    """Mark each prediction, the more opaque the higher its score."""
    draw = ImageDraw.Draw(picture, 'RGBA')
    radius = max(2, min(picture.size) // 150)
    for box, score in zip(found.boxes, found.scores, strict=True):
        x, y = (box[:2] + box[2:]) / 2
        extent = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(extent, fill=(220, 20, 60, 60 + round(195 * score)))


def named(checkpoints: Sequence[str]) -> dict[str, str]:
    """Name checkpoints by their files, or by their paths where these agree.

    Returns:
        dict[str, str]: Each checkpoint by its name.
    """
    stems = [Path(checkpoint).stem for checkpoint in checkpoints]
    return {
        stem if stems.count(stem) == 1 else checkpoint: checkpoint
        for stem, checkpoint in zip(stems, checkpoints, strict=True)
    }


def build_page(playground: Playground) -> 'gradio.Blocks':
    """Build the page.

    Raises:
        UserError: If gradio is not installed.
    """
    gr = import_gradio()
    first = next(iter(playground.detectors))
    with gr.Blocks(title='mmdetr', delete_cache=(_DAY, _DAY)) as page:
        with gr.Row():
            model = gr.Dropdown(
                list(playground.detectors), value=first, label='Model'
            )
            score_thr = gr.Slider(
                0, 1, DEFAULT_SCORE_THR, step=0.01, label='Threshold'
            )
            classes = gr.Dropdown(
                multiselect=True, label='Classes (none: all)'
            )
            layer = gr.Slider(1, 2, step=1, label='Decoder layer')
            shows_queries = gr.Checkbox(label='Centres of all queries')
        options = [score_thr, classes]
        with gr.Tab('Image'):
            _add_image_tab(
                gr, playground, [model, *options, layer, shows_queries]
            )
        with gr.Tab('Video'):
            _add_video_tab(gr, playground, [model, *options])

        def adapt(name: str) -> list:
            """Offer the classes and layers of a model."""
            detector = playground.detectors[name]
            count = num_layers_to_choose(detector.model)
            return [
                gr.update(choices=list(detector.classes), value=[]),
                gr.update(
                    maximum=max(count, 2), value=count, visible=count > 1
                ),
            ]

        for event in (model.change, page.load):
            event(adapt, model, [classes, layer])
    return page


def import_gradio() -> Any:
    """Import gradio.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            'The app needs gradio: pip install "mmdetr[app]".'
        ) from error
    return gradio


def _add_image_tab(
    gr: Any, playground: Playground, settings: Sequence[Any]
) -> None:
    """Add what detects in an image again with each change."""
    with gr.Row():
        image = gr.Image(
            type='filepath',
            sources=['upload', 'webcam', 'clipboard'],
            label='Image',
        )
        picture = gr.Image(label='Detections', interactive=False)
    # Unopened: the detector says what is wrong with a file, gradio does not.
    image.preprocess = lambda payload: payload and payload.path
    table = gr.Dataframe(headers=_COLUMNS, label='Numbers', wrap=True)

    def show(image: str | None, name: str, *options: Any) -> list:
        if image is None:
            return [None, []]
        score_thr, classes, layer, shows_queries = options
        count = num_layers_to_choose(playground.detectors[name].model)
        wanted = layer if 1 <= layer < count else None
        return list(
            playground.detect(
                name, image, score_thr, classes, wanted, shows_queries
            )
        )

    gr.on(
        [part.change for part in (image, *settings)],
        _told_on_page(gr, show),
        [image, *settings],
        [picture, table],
        api_name='detect',
        trigger_mode='always_last',
    )


def _add_video_tab(
    gr: Any, playground: Playground, settings: Sequence[Any]
) -> None:
    """Add what draws detections into a video."""
    with gr.Row():
        video = gr.Video(label='Video', sources=['upload', 'webcam'])
        annotated = gr.Video(label='Detections', interactive=False)

    def show(video: str | None, name: str, *options: Any) -> str | None:
        return (
            None
            if video is None
            else playground.annotate(name, video, *options)
        )

    gr.Button('Detect').click(
        _told_on_page(gr, show),
        [video, *settings],
        annotated,
        api_name='annotate',
    )


def _told_on_page(gr: Any, function: Callable) -> Callable:
    """Let the page show the sentence of a :class:`UserError`."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except UserError as error:
            raise gr.Error(str(error)) from error

    return call
