"""Benign look-alikes: dense, compact things cut out of benign scans, to be pasted without a label."""

from pathlib import Path

import cv2
import numpy as np

from segloc_synth.bank.cutting import DETAIL, Segment, cut_out
from segloc_synth.bank.scenes import bag_area, fit_scan
from segloc_synth.bank.segments import load_palettes
from segloc_synth.colour import palette
from segloc_synth.engines import check_stop

STANDS_OUT = 0.4  # e-folds of attenuation over the ground around
GROUND = 0.12  # of the canvas; how far around a thing its ground is looked for
LEAST, MOST = 0.002, 0.08  # area of a look-alike relative to its bag's
PER_SCAN = 3


def cut_distractors(scan: tuple[str, Path], size: int, palettes: Path) -> list[Segment]:
    """The largest look-alikes of a benign scan (name, file), for a canvas of `size`; class id 0."""
    check_stop()
    name, path = scan
    side = round(DETAIL * size)
    fitted, _ = fit_scan(path, side)
    if fitted is None:
        return []
    pixels, bag, _ = fitted
    known = load_palettes(palettes)
    place = palette.nearest(known, pixels, bag)
    levels = cv2.GaussianBlur(palette.attenuation(pixels), (0, 0), 1.5)
    reach = round(GROUND * side) | 1
    ground = cv2.morphologyEx(levels, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    dense = ((levels.astype(np.int32) - ground > STANDS_OUT * palette.UNIT) & (bag > 0)).astype(np.uint8)
    dense = cv2.morphologyEx(dense, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    _, parts, stats, _ = cv2.connectedComponentsWithStats(dense)
    whole = bag_area(bag)
    areas = stats[:, cv2.CC_STAT_AREA]
    fitting = [part for part in range(1, len(areas)) if LEAST <= areas[part] / whole <= MOST]
    fitting.sort(key=lambda part: (-int(areas[part]), part))
    segments = []
    for number, part in enumerate(fitting[:PER_SCAN]):
        mask = (parts == part).astype(np.uint8)
        share = float(areas[part] / whole) ** 0.5
        segments.append(cut_out(f"{name}#{number}", 0, pixels, mask, dense, known[place], place, size / side, share))
    return segments
