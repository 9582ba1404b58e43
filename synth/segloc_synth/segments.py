"""Cutting labelled segments out of their scans."""

from dataclasses import dataclass

import cv2
import numpy as np

from segloc_synth.engines import check_stop
from segloc_synth.images import BadImage, Pixels, corrupt_rows, read_image, resize
from segloc_synth.labelled import Scan
from segloc_synth.masks import BadMask, annotation_mask, annotations_of, sized
from segloc_synth.problems import Problem

DETAIL = 1.5  # segments are kept at this multiple of the canvas scale, so that they may be enlarged
SMALLEST = 24  # pixels of a mask at canvas scale below which an object cannot be recognised
RING = 0.15  # width of the ring that tells the carrier bag's colour, relative to the segment's larger side


@dataclass(frozen=True)
class Segment:
    """One prepared cut-out.

    Attributes:
        name: scan and annotation, e.g. "train/xray_00012#45".
        class_id: our class id.
        rgba: uint8 [h, w, 4]; alpha 255 inside the mask, colours continued a little beyond it.
        carrier: RGB in 0-255 of what surrounds the object in its own scan.
        zoom: stored pixels per canvas pixel at scale 1.
    """

    name: str
    class_id: int
    rgba: Pixels
    carrier: tuple[int, int, int]
    zoom: float


def cut_segments(scan: Scan, size: int, bottom_rows: int) -> tuple[list[Segment], list[Problem]]:
    """Cut every usable segment out of a labelled scan, for a canvas of `size`; problems beside."""
    check_stop()
    try:
        pixels, kinds = read_image(scan.path, expect=scan.size)
        annotations = annotations_of(scan, pixels)
    except (BadImage, BadMask) as problem:
        return [], [Problem(str(problem), scan.name, f"({len(scan.annotations)} annotations)")]
    scan = sized(scan, pixels)
    bottom_rows = max(bottom_rows, corrupt_rows(pixels))
    found = [Problem(kind, scan.name) for kind in kinds]
    kept = []
    labelled: Pixels = np.zeros((scan.height, scan.width), np.uint8)
    for annotation in annotations:
        try:
            mask = annotation_mask(annotation, scan, pixels)
        except BadMask as problem:
            found.append(Problem(str(problem), scan.name, f"annotation {annotation.id}"))
            continue
        labelled |= mask
        kept.append((annotation, mask[: scan.height - bottom_rows]))
    pixels, labelled = (rows[: scan.height - bottom_rows] for rows in (pixels, labelled))
    canvas_scale = size / max(scan.width, scan.height)
    segments = []
    for annotation, mask in kept:
        if mask.sum() * canvas_scale**2 < SMALLEST:
            kind = f"object too small to be seen at {size} px"
            found.append(Problem(kind, scan.name, f"annotation {annotation.id}"))
            continue
        name = f"{scan.name}#{annotation.id}"
        segments.append(_cut(name, annotation.class_id, pixels, mask, labelled, canvas_scale))
    return segments, found


def _cut(
    name: str,
    class_id: int,
    pixels: Pixels,
    mask: Pixels,
    labelled: Pixels,
    canvas_scale: float,
) -> Segment:
    left, top, width, height = cv2.boundingRect(mask)
    reach = max(4, round(RING * max(width, height)))
    rows = slice(max(0, top - reach), top + height + reach)
    cols = slice(max(0, left - reach), left + width + reach)
    crop, inside, others = pixels[rows, cols], mask[rows, cols], labelled[rows, cols]
    ring = cv2.dilate(inside, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) - inside
    near = cv2.dilate(inside, np.ones((3, 3), np.uint8))  # its pixels mix object and carrier
    surround = crop[(ring == 1) & (near == 0) & (others == 0)]
    carrier = np.median(surround, axis=0) if len(surround) else np.full(3, 255)
    detail = min(1.0, DETAIL * canvas_scale)
    shape = [max(1, round(side * detail)) for side in inside.shape]
    # Colours of the object are continued over its edge, or a resampled edge would carry the old bag's colour.
    weight = cv2.erode(inside, np.ones((3, 3), np.uint8)) if inside.sum() > 200 else inside
    filled = np.where(weight[..., None] == 1, crop, _spread(crop, weight))
    colour = resize(np.ascontiguousarray(filled), shape[1], shape[0])
    alpha = resize(inside * np.uint8(255), shape[1], shape[0])
    box = cv2.boundingRect((alpha > 0).astype(np.uint8))
    tight = (slice(box[1], box[1] + box[3]), slice(box[0], box[0] + box[2]))
    rgba = np.dstack([colour[tight], alpha[tight]])
    return Segment(
        name,
        class_id,
        rgba,
        (int(carrier[0]), int(carrier[1]), int(carrier[2])),
        round(detail / canvas_scale, 6),
    )


def _spread(crop: Pixels, weight: Pixels) -> Pixels:
    """Each pixel as the mean of the weighted pixels within two pixels of it (normalised convolution)."""
    total = cv2.boxFilter(weight.astype(np.float32), -1, (5, 5), normalize=False)
    sums = cv2.boxFilter(crop.astype(np.float32) * weight[..., None], -1, (5, 5), normalize=False)
    mean = sums / np.maximum(total, 1)[..., None]
    return np.where(total[..., None] > 0, np.rint(mean), crop).astype(np.uint8)
