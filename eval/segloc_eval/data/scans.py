"""Scans and their labelled objects, and which foreign records can become one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask

from segloc_synth.sources.masks import FAR, BadMask, segmentation_to_mask

SLACK = 2.0  # pixels by which a box may reach over the edge (rounding); it is cut there
LONGEST = 300  # characters of a foreign record that are told


@dataclass(frozen=True)
class Object:
    """One labelled object: box (x, y, w, h) and area in the scan's pixels, mask as compressed RLE or None.

    `id` is the annotation's in its own json, for messages.
    """

    id: str
    category_id: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    mask: dict[str, Any] | None


@dataclass(frozen=True)
class Scan:
    """One picture; `id` is unique over all splits, `source_id` is the one in its own json."""

    id: int
    source_id: int | str
    path: Path
    width: int
    height: int
    objects: tuple[Object, ...]


def scan_name(scan: Scan, root: Path) -> str:
    """The scan's path below `root`, with "/"; the bare name of one that lies elsewhere."""
    return scan.path.relative_to(root).as_posix() if scan.path.is_relative_to(root) else scan.path.name


def classes_of(scan: Scan) -> set[int]:
    """Classes of the scan's objects, crowds left out."""
    return {thing.category_id for thing in scan.objects if not thing.crowd}


def read_object(record: dict[str, Any], classes: dict[int, str], width: int, height: int) -> Object:
    """One annotation; BadMask with the kind of problem when it cannot be used. Without a box, the mask's is taken."""
    category = record.get("category_id")
    if type(category) is not int or category not in classes:
        raise BadMask("annotation of an unknown category")
    mask = None
    box, area = record.get("bbox"), record.get("area")
    if record.get("segmentation"):
        pixels = segmentation_to_mask(record["segmentation"], height, width)
        encoded = coco_mask.encode(np.asfortranarray(pixels))
        mask = {"size": [height, width], "counts": encoded["counts"].decode()}
        box = coco_mask.toBbox(encoded).tolist() if box is None else box
        area = area or int(pixels.sum())
    if not isinstance(box, list) or len(box) != 4 or not all(type(v) in (int, float) and abs(v) < FAR for v in box):
        raise BadMask("annotation without a box")
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(width, box[0] + box[2]), min(height, box[1] + box[3])
    if not (right > left and bottom > top):
        raise BadMask("box without area or outside the image")
    if not max(left - box[0], top - box[1], box[0] + box[2] - right, box[1] + box[3] - bottom) <= SLACK:
        raise BadMask("box reaching outside the image")
    inside = (float(left), float(top), right - left, bottom - top)
    extent = inside[2] * inside[3]
    if isinstance(area, int | float) and 0 < area <= width * height:
        extent = float(area)
    return Object(str(record.get("id", "?")), category, inside, extent, bool(record.get("iscrowd")), mask)


def short(value: object) -> str:
    """What a foreign record says, on one printable line of bounded length."""
    text = "".join(char if char.isprintable() else "?" for char in " ".join(str(value).split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def is_id(value: Any) -> TypeGuard[int | str]:
    """An image's or annotation's, as COCO files have them."""
    return type(value) in (int, str)
