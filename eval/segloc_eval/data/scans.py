"""Scans and their labelled objects, as they are learnt and scored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from segloc_synth.sources.masks import exact_mask
from segloc_synth.sources.records import Annotation


@dataclass(frozen=True)
class Object:
    """One labelled object: box (x, y, w, h) and area in the scan's pixels, mask as compressed RLE or None.

    `id` is the annotation's in its own data set, for messages. Crowds and difficult ones are neither learnt nor scored.
    """

    id: str
    category_id: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    mask: dict[str, Any] | None
    difficult: bool = False

    @property
    def ignored(self) -> bool:
        """A crowd or difficult: whoever finds it is neither right nor wrong."""
        return self.crowd or self.difficult


@dataclass(frozen=True)
class Scan:
    """One picture; `id` is unique over all splits, `source_id` is the one in its own json."""

    id: int
    source_id: int | str
    path: Path
    width: int
    height: int
    objects: tuple[Object, ...]


def name_below(path: Path, root: Path | None) -> str:
    """The path below `root`, with "/"; the bare name of what lies elsewhere."""
    return path.relative_to(root).as_posix() if root and root in path.parents else path.name


def classes_of(scan: Scan) -> set[int]:
    """Classes of the scan's objects, ignored ones left out."""
    return {thing.category_id for thing in scan.objects if not thing.ignored}


def read_object(found: Annotation, width: int, height: int) -> Object:
    """One annotation, its mask decoded; BadLabel with the kind of problem when that cannot be used."""
    mask, box, area = None, found.box, found.area
    if found.segmentation is not None:
        pixels = exact_mask(found, height, width)
        encoded = coco_mask.encode(np.asfortranarray(pixels))
        mask = {"size": [height, width], "counts": encoded["counts"].decode()}
        x, y, w, h = coco_mask.toBbox(encoded).tolist() if box is None else box
        box, area = (x, y, w, h), area or float(pixels.sum())
    assert box is not None, "an annotation has either"
    return Object(found.id, found.class_id, box, area or box[2] * box[3], found.crowd, mask, found.difficult)
