"""Masks from boxes: the dark thing inside a box that was drawn tight around it."""

import cv2
import numpy as np

from segloc_synth.sources.images import WHITE, Pixels
from segloc_synth.sources.masks import exact_mask
from segloc_synth.sources.records import Annotation
from segloc_synth.sources.text import BadLabel

LEVELS = 32  # thresholds tried
FLOOR = 0.45  # of the score, below which no object can be told from its surroundings; set by eye on 127 real boxes
LEAK = 0.15  # share of a part's outline on the box's edge that goes on outside, above which it is clutter
AROUND = 2  # pixels around the box, beyond which a part that meets its edge goes on; boxes are that exact
PART = 0.2  # parts of at least this share of the largest belong to the object: handles, the blades of scissors


def annotation_mask(annotation: Annotation, pixels: Pixels) -> Pixels:
    """The mask of one annotation as 0/1, uint8 [H, W], of its scan's decoded `pixels`, RGB uint8 [H, W, 3].

    An annotation that has only a box gets the dark object found inside it (see `boxes`).

    Raises:
        BadLabel: the label cannot be decoded, lies outside the picture, or no object stands out in its box.
    """
    if not annotation.derived:
        return exact_mask(annotation, *pixels.shape[:2])
    assert annotation.box is not None, "it has either"
    mask = mask_from_box(pixels, annotation.box)
    if mask is None:
        raise BadLabel("box in which no object stands out")
    return mask


def mask_from_box(pixels: Pixels, box: tuple[float, float, float, float]) -> Pixels | None:
    """The object in `box` (x, y, w, h), inside the picture RGB uint8 [H, W, 3], as 0/1 mask uint8 [H, W].

    The darkness inside the box is cut at a threshold and cleaned by closing and opening; parts that go on outside
    the box are dropped. Of several thresholds that one is taken whose mask fills the box from side to side (boxes are
    tight), is solid, ends at steep edges and inside the box, and parts the grey levels well (Otsu's between-class
    variance). None when even the best is doubtful.
    """
    height, width = pixels.shape[:2]
    left, top = round(box[0]), round(box[1])
    right, bottom = min(width, max(left + 1, round(box[0] + box[2]))), min(height, max(top + 1, round(box[1] + box[3])))
    if min(right - left, bottom - top) < 3:
        return None
    crop = pixels[max(0, top - AROUND) : bottom + AROUND, max(0, left - AROUND) : right + AROUND]
    rows = (max(0, AROUND - top), max(0, bottom + AROUND - height))
    cols = (max(0, AROUND - left), max(0, right + AROUND - width))
    crop = np.pad(crop, (rows, cols, (0, 0)), constant_values=WHITE)  # belt beyond the picture's edge
    # The weakest channel counts twice: saturated colours are material too.
    light = (crop.sum(axis=2, dtype=np.int32) + crop.min(axis=2)) // 4
    dark = cv2.GaussianBlur((WHITE - light).astype(np.uint8), (3, 3), 0)
    inner = dark[AROUND:-AROUND, AROUND:-AROUND]
    low, high = np.quantile(inner, (0.05, 0.95))
    slope = cv2.morphologyEx(dark, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))[AROUND:-AROUND, AROUND:-AROUND]
    steep = np.minimum(1, slope / max(8, 0.7 * (high - low)))
    variance = _between_class_variance(inner)
    best: tuple[float, Pixels | None] = (FLOOR, None)
    # Half of the levels between equal shares of pixels, half at equal steps of darkness.
    levels = (*np.quantile(inner, np.linspace(0.05, 0.97, LEVELS // 2)), *np.linspace(low, high, LEVELS // 2 + 2)[1:-1])
    for level in np.unique(np.array(levels, int)):
        found = _own_parts(_clean((dark > level).astype(np.uint8)))
        if found is None:
            continue
        mask, outline, leak = found
        _, _, w, h = cv2.boundingRect(mask)
        filled = w * h / mask.size
        rim = (mask == 1) & (cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=0) == 0)
        edge = float(steep[rim].mean()) if rim.any() else 0.0
        solid = min(1.0, float(mask.sum()) / (2 * outline))  # ragged shapes are clutter; a solid blade reaches 1
        closed = (1 - leak / outline) * (1 - leak / (2 * sum(mask.shape)))
        score = filled * edge * solid * closed * (0.4 + 0.6 * variance[level])
        if score > best[0]:
            best = (score, mask)
    if best[1] is None:
        return None
    whole = np.zeros((height, width), np.uint8)
    whole[top:bottom, left:right] = best[1]
    return whole


def _between_class_variance(grey: Pixels) -> np.ndarray:
    """Otsu's criterion for a cut above each level, float [256], largest 1 (Otsu 1979, eq. 14)."""
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    below, mean = np.cumsum(share), np.cumsum(share * np.arange(256))
    spread = below * (1 - below)
    variance = np.divide((mean[-1] * below - mean) ** 2, spread, out=np.zeros(256), where=spread > 1e-9)
    return variance / max(float(variance.max()), 1e-9)


def _clean(mask: Pixels) -> Pixels:
    """Small holes and gaps closed, hairs and specks removed."""
    side = min(mask.shape) - 2 * AROUND
    reach = 2 * max(1, round(side / 40)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    width = 3 if side > 40 else 2  # of hairs
    hair = np.ones((width, width), np.uint8)
    wide = cv2.copyMakeBorder(mask, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    wide = cv2.erode(cv2.morphologyEx(wide, cv2.MORPH_CLOSE, disc), hair, anchor=(0, 0))
    wide = cv2.dilate(wide, hair, anchor=(width - 1, width - 1))  # MORPH_OPEN moves the mask when the width is even
    return np.asarray(wide[reach:-reach, reach:-reach], np.uint8)


def _own_parts(framed: Pixels) -> tuple[Pixels, float, float] | None:
    """(mask, pixels of its outline, those of them where it goes on outside) of what belongs to the box, if anything.

    `framed` is the thresholded box with AROUND pixels of its surroundings on each side.
    """
    within = slice(AROUND, -AROUND)
    inner = np.ascontiguousarray(framed[within, within])
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inner, connectivity=8)
    leak = np.zeros(count, np.int64)
    for own, beyond in (
        (labels[0], framed[0, within]),
        (labels[-1], framed[-1, within]),
        (labels[:, 0], framed[within, 0]),
        (labels[:, -1], framed[within, -1]),
    ):
        leak += np.bincount(own[beyond > 0], minlength=count)
    core = cv2.erode(framed, np.ones((3, 3), np.uint8))[within, within]
    outline = np.bincount(labels[(inner == 1) & (core == 0)], minlength=count) + leak
    belongs = leak <= LEAK * outline
    belongs[0] = False
    size = stats[:, cv2.CC_STAT_AREA] * belongs
    if not size.any():
        return None
    keep = belongs & (size >= PART * size.max())
    return keep[labels].astype(np.uint8), float(outline[keep].sum()), float(leak[keep].sum())
