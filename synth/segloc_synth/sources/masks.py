"""Masks of labelled objects, from whatever a data set gives: COCO segmentations and class-id pictures."""

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from segloc_synth.rle import rle_pixels
from segloc_synth.sources.images import BadImage, Lost, Pixels, opened
from segloc_synth.sources.records import Annotation, Box, ClassIdPicture, Scan
from segloc_synth.sources.text import BadLabel
from segloc_synth.sources.values import numbers

NO_AREA = "mask without area"
DAMAGED = "damaged RLE"
OTHER_SIZE = "mask of another size than its image"
MEETS = 0.5  # share of a mask that lies in its box, at least; boxes are drawn around masks
LONGEST_OUTLINE = 4e6  # pixels
BETWEEN = 0.4  # share of outlines with values between, above which a class-id picture was interpolated


def annotations_of(scan: Scan, size: tuple[int, ...] | None = None) -> tuple[Annotation, ...]:
    """The annotations of a scan; one per connected component of a class-id picture, which is read here.

    `size` is (height, width) of the decoded picture, where that is known. A component's id is "value.place", components
    of a value counted from 1 in reading order; its segmentation is a compressed RLE, its box tight around it.

    Raises:
        BadLabel: the class-id picture is damaged, of another size, was resized with interpolation, or holds values that
            are no class, or only such as are to be ignored.
        Lost: it is missing or may not be read.
    """
    if scan.mask is None:
        return scan.annotations
    values = read_class_ids(scan.mask)
    height, width = values.shape
    if size is not None and values.shape != size:
        raise BadLabel(OTHER_SIZE)
    found = []
    drawn = [int(value) for value in np.unique(values) if value]
    if drawn and scan.mask.void.issuperset(drawn):
        raise BadLabel(f"mask of nothing but {drawn[0]}, which is no class but the border around objects")
    if is_interpolated(np.where(np.isin(values, sorted(scan.mask.void)), 0, values).astype(np.uint8)):
        raise BadLabel("mask with values between its classes, as resizing with interpolation or JPEG leave them")
    for value in sorted(set(drawn) - scan.mask.void - scan.mask.left_out):
        if value not in scan.mask.class_of:
            raise BadLabel(f"mask value {value}, which is no class")
        count, labels, stats, _ = cv2.connectedComponentsWithStats((values == value).astype(np.uint8), connectivity=8)
        for place in range(1, count):
            rle = coco_mask.encode(np.asfortranarray(labels == place, np.uint8))
            segmentation = {"size": [height, width], "counts": rle["counts"].decode()}
            x, y, w, h, area = map(float, stats[place])
            found.append(Annotation(f"{value}.{place}", scan.mask.class_of[value], segmentation, (x, y, w, h), area))
    return tuple(found)


def is_interpolated(values: Pixels) -> bool:
    """Whether a picture, uint8 [H, W], 0 its background, is a class-id picture that was resized with interpolation.

    Then the outlines of its higher classes are lined with values between them and the background; where objects of two
    classes touch, few pixels have both the background and a higher value beside them.
    """
    around = np.ones((3, 3), np.uint8)
    low = cv2.erode(values, around, borderType=cv2.BORDER_REPLICATE)
    high = cv2.dilate(values, around, borderType=cv2.BORDER_REPLICATE)
    outline = (values > 0) & (low == 0)
    between = outline & (high > values)
    return bool(between.sum() > BETWEEN * max(1, outline.sum()))


def exact_mask(annotation: Annotation, height: int, width: int) -> Pixels:
    """The mask that an annotation states, decoded as 0/1, uint8 [height, width].

    Raises:
        BadLabel: it cannot be decoded, lies outside the picture, or elsewhere than the annotation's box says: of two
            that contradict each other nobody knows which is meant.
    """
    mask = segmentation_to_mask(annotation.segmentation, height, width)
    if annotation.box is not None and _share_inside(mask, annotation.box) < MEETS:
        rle = annotation.segmentation
        turned = np.ascontiguousarray(mask.T).reshape(height, width) if isinstance(rle, dict) else None
        if turned is not None and _share_inside(turned, annotation.box) >= 1 - MEETS / 4:
            raise BadLabel("mask whose run lengths are counted by rows; COCO's are by columns")
        raise BadLabel("box and mask that do not meet")
    return mask


def _share_inside(mask: Pixels, box: Box) -> float:
    """The share of a mask's pixels that lie in a box."""
    left, top = max(0, round(box[0]) - 1), max(0, round(box[1]) - 1)
    inside = mask[top : round(box[1] + box[3]) + 1, left : round(box[0] + box[2]) + 1]
    return float(np.count_nonzero(inside) / max(1, np.count_nonzero(mask)))


def read_class_ids(picture: ClassIdPicture) -> Pixels:
    """The values of a class-id picture, uint8 [H, W].

    Raises:
        BadLabel: it is damaged or in colours.
        Lost: it is missing or may not be read.
    """
    try:
        with opened(picture.path) as image:
            single = image.mode in ("1", "L", "P") or image.mode.startswith("I")
            values = np.array(image if single else image.convert("RGB"))
    except BadImage as problem:
        kind = str(problem).replace("image file", "mask file")
        raise (Lost(kind, problem.fault) if isinstance(problem, Lost) else BadLabel(kind)) from None
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise BadLabel("mask in colours; pixel values must be class ids")
        values = values[..., 0]
    if values.max() > 255 or values.min() < 0:
        raise BadLabel("mask with values over 255")
    return np.ascontiguousarray(values, np.uint8)


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> Pixels:
    """Decode a COCO segmentation to a 0/1 mask, uint8 [height, width].

    Takes polygons (several parts are united, parts of under 3 points dropped), compressed and uncompressed RLE.

    Raises:
        BadLabel: none of these, of another size than the image, outside of it or without area.
    """
    if isinstance(segmentation, dict):
        mask = _from_rle(segmentation, height, width)
    elif isinstance(segmentation, list) and segmentation:
        parts = coco_mask.frPyObjects(_checked_parts(segmentation, height, width), height, width)
        mask = coco_mask.decode(coco_mask.merge(parts))
    else:
        raise BadLabel("annotation without a mask")
    if not mask.any():
        raise BadLabel(NO_AREA)
    return np.asarray(mask, np.uint8)


def _from_rle(rle: dict[str, Any], height: int, width: int) -> Pixels:
    counts = rle.get("counts")
    if numbers(rle.get("size")) != [height, width]:
        raise BadLabel("RLE of another size than its image")
    if isinstance(counts, str):
        try:
            flat = rle_pixels([counts.encode("utf-8", "surrogatepass")], height * width)[0]
        except ValueError:
            raise BadLabel(DAMAGED) from None
        return flat.reshape(width, height).T
    runs = numbers(counts) or []
    if sum(runs) != height * width or not all(run >= 0 and run == int(run) for run in runs):
        raise BadLabel(DAMAGED)
    return np.repeat(np.arange(len(runs)) % 2 == 1, np.asarray(runs, np.int64)).reshape(width, height).T


def _checked_parts(parts: list[Any], height: int, width: int) -> list[list[float]]:
    good: list[list[float]] = []
    for said in parts:
        part = numbers(said)
        if part is None:
            raise BadLabel("polygon that is no list of numbers")
        if len(part) >= 6 and len(part) % 2 == 0:
            good.append(part)
    if not good:
        raise BadLabel("polygon of fewer than 3 points")
    x = np.concatenate([part[0::2] for part in good])
    y = np.concatenate([part[1::2] for part in good])
    outside = x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height
    # Rasterising walks along every edge, so a corner far out would cost memory without end.
    far = max(np.abs(x).max() - 2 * width, np.abs(y).max() - 2 * height) > 0
    if outside or far:
        raise BadLabel("polygon outside the image")
    if sum(map(_length, good)) > LONGEST_OUTLINE:  # so would very many corners: pycocotools counts in 32 bits
        raise BadLabel("polygon with an outline of millions of pixels")
    return good


def _length(part: list[float]) -> float:
    """The steps along the outline of a polygon x1, y1, x2, y2, ... from pixel to pixel."""
    corners = np.asarray(part).reshape(-1, 2)
    return float(np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum())
