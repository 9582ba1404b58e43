"""Masks of labelled objects, from whatever a data set gives: COCO segmentations, class-id pictures, boxes."""

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from segloc_synth.rle import rle_pixels
from segloc_synth.sources.images import BadImage, Lost, Pixels, opened
from segloc_synth.sources.labelled import Annotation, Scan

NO_AREA = "mask without area"
DAMAGED = "damaged RLE"
FAR = 1e12  # beyond it numbers are no coordinates, and arithmetic on them overflows


class BadMask(ValueError):
    """A label that yields no mask; the message is the kind of problem."""


def annotations_of(scan: Scan, pixels: Pixels) -> tuple[Annotation, ...]:
    """The annotations of a scan with decoded `pixels` [H, W, 3]; one per connected component of a class-id picture.

    That is read here. A component's id is "value.place", components of a value counted from 1 in reading order.

    Raises:
        BadMask: the class-id picture is damaged, of another size, or holds values that are no class, or only such
            as are to be ignored.
        Lost: it is missing or may not be read.
    """
    if scan.mask is None:
        return scan.annotations
    values = read_class_ids(scan)
    height, width = values.shape
    if values.shape != pixels.shape[:2]:
        raise BadMask("mask of another size than its image")
    found = []
    drawn = [int(value) for value in np.unique(values) if value]
    present = [value for value in drawn if value not in scan.mask.void | scan.mask.left_out]
    if drawn and scan.mask.void.issuperset(drawn):
        raise BadMask(f"mask of nothing but {drawn[0]}, which is no class but the border around objects")
    for value in present:
        if value not in scan.mask.class_of:
            raise BadMask(f"mask value {value}, which is no class")
        count, labels = cv2.connectedComponents((values == value).astype(np.uint8), connectivity=8)
        for place in range(1, count):
            rle = coco_mask.encode(np.asfortranarray(labels == place, np.uint8))
            segmentation = {"size": [height, width], "counts": rle["counts"].decode()}
            found.append(Annotation(f"{value}.{place}", scan.mask.class_of[value], segmentation))
    return tuple(found)


def checked_box(box: Any, height: int, width: int) -> tuple[float, float, float, float]:
    """(x, y, w, h) cut to the picture; BadMask when it is no box, or without area there, or mostly outside."""
    if (
        not isinstance(box, list | tuple)
        or len(box) != 4
        or not all(type(number) in (int, float) and abs(number) < FAR for number in box)
    ):
        raise BadMask("box that is no list of four numbers")
    x, y, w, h = (float(number) for number in box)
    left, top, right, bottom = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
    if right - left < 1 or bottom - top < 1:
        raise BadMask("box without area or outside the image")
    if (right - left) * (bottom - top) < 0.5 * w * h:
        raise BadMask("box mostly outside the image")
    return left, top, right - left, bottom - top


def read_class_ids(scan: Scan) -> Pixels:
    """The values of a scan's class-id picture, uint8 [H, W].

    Raises:
        BadMask: it is damaged or in colours.
        Lost: it is missing or may not be read.
    """
    assert scan.mask is not None
    try:
        with opened(scan.mask.path) as image:
            single = image.mode in ("1", "L", "P") or image.mode.startswith("I")
            values = np.array(image if single else image.convert("RGB"))
    except BadImage as problem:
        kind = str(problem).replace("image file", "mask file")
        raise (Lost(kind, problem.fault) if isinstance(problem, Lost) else BadMask(kind)) from None
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise BadMask("mask in colours; pixel values must be class ids")
        values = values[..., 0]
    if values.max() > 255 or values.min() < 0:
        raise BadMask("mask with values over 255")
    return np.ascontiguousarray(values, np.uint8)


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> Pixels:
    """Decode a COCO segmentation to a 0/1 mask, uint8 [height, width].

    Takes polygons (several parts are united, parts of under 3 points dropped), compressed and uncompressed RLE.

    Raises:
        BadMask: none of these, of another size than the image, outside of it or without area.
    """
    if isinstance(segmentation, dict):
        mask = _from_rle(segmentation, height, width)
    elif isinstance(segmentation, list) and segmentation:
        parts = coco_mask.frPyObjects(_checked_parts(segmentation, height, width), height, width)
        mask = coco_mask.decode(coco_mask.merge(parts))
    else:
        raise BadMask("annotation without a mask")
    if not mask.any():
        raise BadMask(NO_AREA)
    return np.asarray(mask, np.uint8)


def _from_rle(rle: dict[str, Any], height: int, width: int) -> Pixels:
    counts = rle.get("counts")
    if rle.get("size") != [height, width]:
        raise BadMask("RLE of another size than its image")
    if isinstance(counts, str):
        try:
            flat = rle_pixels([counts.encode("utf-8", "surrogatepass")], height * width)[0]
        except ValueError:
            raise BadMask(DAMAGED) from None
        return flat.reshape(width, height).T
    if not isinstance(counts, list) or not all(type(run) is int and abs(run) < FAR for run in counts):
        raise BadMask(DAMAGED)
    runs = np.asarray(counts, np.int64)
    if not runs.size or runs.min() < 0 or runs.sum() != height * width:
        raise BadMask(DAMAGED)
    return np.repeat(np.arange(len(runs), dtype=np.uint8) & 1, runs).reshape(width, height).T


def _checked_parts(parts: list[Any], height: int, width: int) -> list[list[float]]:
    good: list[list[float]] = []
    for part in parts:
        if not isinstance(part, list) or not all(type(number) in (int, float) for number in part):
            raise BadMask("polygon that is no list of numbers")
        if not all(abs(number) < FAR for number in part):  # nan fails too
            raise BadMask("polygon that is no list of numbers")
        if len(part) >= 6 and len(part) % 2 == 0:
            good.append(part)
    if not good:
        raise BadMask("polygon of fewer than 3 points")
    x = np.concatenate([part[0::2] for part in good])
    y = np.concatenate([part[1::2] for part in good])
    outside = x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height
    # Rasterising walks along every edge, so a corner far out would cost memory without end.
    far = max(np.abs(x).max() - 2 * width, np.abs(y).max() - 2 * height) > 0
    if outside or far:
        raise BadMask("polygon outside the image")
    return good
