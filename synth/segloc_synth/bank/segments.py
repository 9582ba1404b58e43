"""The segments of a labelled source: every usable object of every scan, cut out."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from segloc_synth.bank.boxes import annotation_mask
from segloc_synth.bank.cutting import Segment, cut_out
from segloc_synth.bank.labelled import MIN_TRUST, LabelledSource
from segloc_synth.bank.scenes import bag_area
from segloc_synth.colour import learning, palette
from segloc_synth.colour.palette import Palette
from segloc_synth.engines import check_stop
from segloc_synth.sources.backgrounds import bag_mask
from segloc_synth.sources.images import BadImage, Pixels, corrupt_rows, fit_to_canvas, read_image, required
from segloc_synth.sources.listing import spread
from segloc_synth.sources.masks import annotations_of
from segloc_synth.sources.problems import Problem
from segloc_synth.sources.records import Annotation, Scan
from segloc_synth.sources.text import BadLabel

SMALLEST = 24  # pixels of a mask at canvas scale below which an object cannot be recognised
ALONE = 4.0  # a bag of less than this many times the object's area is the object itself, and tells no size


def learn_palettes(source: LabelledSource, size: int) -> list[Palette]:
    """The palettes of a labelled source, from the bags of scans spread evenly over it, without labelled items.

    Cut-outs on white show nothing but items: then these tell.
    """
    pictures, whole, bags = [], [], []
    for place in spread(len(source.scans), learning.SCANS):
        check_stop()
        try:
            pixels, _, labelled, _ = open_scan(source.scans[place], source.bottom_rows, source.min_trust)
        except (BadImage, BadLabel):
            continue
        picture = fit_to_canvas(pixels, size)
        free = fit_to_canvas(255 - 255 * np.dstack([labelled] * 3), size)[..., 0] == 255
        pictures.append(picture)
        whole.append(bag_mask(picture))
        bags.append(whole[-1] * free)
    return learning.fit(pictures, bags if any(bag.any() for bag in bags) else whole)


@lru_cache(maxsize=4)
def load_palettes(path: Path) -> list[Palette]:
    """The palettes in a file, read once by each process."""
    return palette.load(path)


def cut_segments(
    scan: Scan, size: int, bottom_rows: int, palettes: Path, min_trust: float = MIN_TRUST
) -> tuple[list[Segment], list[Problem]]:
    """Cut every usable segment out of a labelled scan, for a canvas of `size`; problems beside.

    bottom_rows: known corrupt rows at the scan's lower edge. palettes: file of the source's palettes.
    min_trust: least trust, 0 to 1, of a mask derived from a box.
    """
    check_stop()
    try:
        pixels, masks, labelled, found = open_scan(scan, bottom_rows, min_trust)
    except (BadImage, BadLabel) as problem:
        return [], [Problem(str(problem), scan.name, f"({len(scan.annotations)} annotations)")]
    canvas_scale = size / max(pixels.shape[:2])
    picture = fit_to_canvas(pixels, size)
    bag = bag_mask(picture)
    known, whole = load_palettes(palettes), bag_area(bag)
    place = palette.nearest(known, picture, bag)
    segments = []
    for annotation, mask, trust in masks:
        area = int(mask.sum()) * canvas_scale**2
        if area < SMALLEST:
            kind = f"object too small to be seen at {size} px"
            found.append(Problem(kind, scan.name, f"annotation {annotation.id}"))
            continue
        share = (area / whole) ** 0.5 if whole >= ALONE * area else 0.0
        name = f"{scan.name}#{annotation.id}"
        segment = cut_out(name, annotation.class_id, pixels, mask, labelled, known[place], place, canvas_scale, share)
        segments.append(replace(segment, trust=trust))
    return segments, found


def open_scan(
    scan: Scan, bottom_rows: int, min_trust: float = MIN_TRUST
) -> tuple[Pixels, list[tuple[Annotation, Pixels, float]], Pixels, list[Problem]]:
    """A scan without its corrupt rows: RGB uint8 [H, W, 3], 0/1 mask and trust of each annotation, the masks' union,
    problems. min_trust: as in cut_segments.

    Raises:
        BadImage: the scan cannot be used.
        BadLabel: its class-id picture cannot.
        OSError: either vanished or may not be read.
    """
    with required():
        pixels, kinds = read_image(scan.path, expect=scan.size)
        annotations = annotations_of(scan, pixels.shape[:2])
    found = [Problem(kind, scan.name) for kind in kinds]
    height = len(pixels) - max(bottom_rows, corrupt_rows(pixels))
    masks = []
    labelled: Pixels = np.zeros((height, pixels.shape[1]), np.uint8)
    for annotation in annotations:
        try:
            mask, trust = annotation_mask(annotation, pixels, annotations, min_trust)
        except BadLabel as problem:
            found.append(Problem(str(problem), scan.name, f"annotation {annotation.id}"))
            continue
        mask = mask[:height]
        labelled |= mask
        masks.append((annotation, mask, trust))
    return pixels[:height], masks, labelled, found
