"""The same dataset in the formats that people have."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path


def as_roboflow(data: Path, root: Path) -> None:
    """Images and annotations together, and a supercategory of its own."""
    for split, name in (('train', 'train'), ('val', 'valid')):
        shutil.copytree(data / split, root / name)
        content = _read(data, split)
        for category in content['categories']:
            category['supercategory'] = 'things'
        parent = dict(id=0, name='things', supercategory='none')
        content['categories'].insert(0, parent)
        text = json.dumps(content)
        (root / name / '_annotations.coco.json').write_text(text)


def as_yolo(data: Path, root: Path) -> None:
    """data.yaml, images/ and labels/."""
    categories = _read(data, 'train')['categories']
    names = [category['name'] for category in categories]
    root.mkdir()
    (root / 'data.yaml').write_text(json.dumps(dict(names=names)))
    ids = [category['id'] for category in categories]
    for split in ('train', 'val'):
        shutil.copytree(data / split, root / 'images' / split)
        labels = root / 'labels' / split
        labels.mkdir(parents=True)
        for image, boxes in _images(_read(data, split)):
            w, h = image['width'], image['height']
            lines = []
            for box in boxes:
                x, y, bw, bh = box['bbox']
                values = ((x + bw / 2) / w, (y + bh / 2) / h, bw / w, bh / h)
                words = [str(ids.index(box['category_id'])), *map(str, values)]
                lines.append(' '.join(words))
            stem = Path(image['file_name']).stem
            (labels / f'{stem}.txt').write_text('\n'.join(lines))


def as_voc(data: Path, root: Path) -> None:
    """Annotations/, JPEGImages/ and ImageSets/Main/."""
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for split in ('train', 'val'):
        content, ids = _read(data, split), []
        names = {c['id']: c['name'] for c in content['categories']}
        for image, boxes in _images(content):
            path = data / split / image['file_name']
            ids.append(f'{split}_{path.stem}')
            copy = root / 'JPEGImages' / f'{ids[-1]}{path.suffix}'
            shutil.copy(path, copy)
            file = root / 'Annotations' / f'{ids[-1]}.xml'
            _voc_file(image, boxes, names).write(file)
        text = '\n'.join(ids) + '\n'
        (root / 'ImageSets' / 'Main' / f'{split}.txt').write_text(text)


def _voc_file(image: dict, boxes: list[dict], names: dict) -> ET.ElementTree:
    top = ET.Element('annotation')
    size = ET.SubElement(top, 'size')
    for key in ('width', 'height'):
        ET.SubElement(size, key).text = str(image[key])
    for box in boxes:
        item = ET.SubElement(top, 'object')
        ET.SubElement(item, 'name').text = names[box['category_id']]
        corners = ET.SubElement(item, 'bndbox')
        x, y, w, h = box['bbox']
        for key, value in zip(
            ('xmin', 'ymin', 'xmax', 'ymax'), (x, y, x + w, y + h), strict=True
        ):
            ET.SubElement(corners, key).text = str(value)
    return ET.ElementTree(top)


def _read(data: Path, split: str) -> dict:
    return json.loads((data / 'annotations' / f'{split}.json').read_text())


def _images(content: dict) -> Iterator[tuple[dict, list[dict]]]:
    for image in content['images']:
        boxes = content['annotations']
        yield image, [b for b in boxes if b['image_id'] == image['id']]


FORMATS: dict[str, Callable[[Path, Path], object]] = {
    'COCO': shutil.copytree,
    'Roboflow': as_roboflow,
    'VOC': as_voc,
    'YOLO': as_yolo,
}
"""Write a copy of a COCO dataset in each format: ``write(data, root)``."""
