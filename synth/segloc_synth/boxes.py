"""Masks from boxes: the dark thing inside a box that was drawn tight around it."""

import cv2
import numpy as np

from segloc_synth.images import WHITE, Pixels

LEVELS = 32  # thresholds tried
FLOOR = 0.45  # of the score, below which no object can be told from its surroundings; set by eye on 127 real boxes
LEAK = 0.15  # share of a part's outline on the box's edge that goes on outside, above which it is clutter
PART = 0.2  # parts of at least this share of the largest belong to the object: handles, the blades of scissors


def mask_from_box(pixels: Pixels, box: tuple[float, float, float, float]) -> Pixels | None:
    """The object in `box` (x, y, w, h), inside the picture RGB uint8 [H, W, 3], as 0/1 mask uint8 [H, W].

    The darkness inside the box is cut at a threshold and cleaned by closing and opening; parts that go on outside
    the box are dropped. Of several thresholds that one is taken whose mask fills the box from side to side (boxes are
    tight), is solid, ends at steep edges and not at the box's, and parts the grey levels well (Otsu's between-class
    variance). None when even the best is doubtful.
    """
    height, width = pixels.shape[:2]
    left, top = round(box[0]), round(box[1])
    right, bottom = min(width, max(left + 1, round(box[0] + box[2]))), min(height, max(top + 1, round(box[1] + box[3])))
    # One pixel of surroundings shows what goes on outside; beyond the picture's edge lies belt.
    crop = pixels[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1]
    frame = ((top == 0, bottom == height), (left == 0, right == width), (0, 0))
    crop = np.pad(crop, frame, constant_values=WHITE)
    if min(crop.shape[:2]) < 5:
        return None
    # The weakest channel counts twice: saturated colours are material too.
    light = (crop.sum(axis=2, dtype=np.int32) + crop.min(axis=2)) // 4
    dark = cv2.GaussianBlur((WHITE - light).astype(np.uint8), (3, 3), 0)
    inner = dark[1:-1, 1:-1]
    low, high = np.quantile(inner, (0.05, 0.95))
    slope = cv2.morphologyEx(dark, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))[1:-1, 1:-1]
    steep = np.minimum(1, slope / max(8, 0.7 * (high - low)))
    variance = _between_class_variance(inner)
    best: tuple[float, Pixels | None] = (FLOOR, None)
    for level in np.unique(np.quantile(inner, np.linspace(0.05, 0.97, LEVELS)).astype(int)):
        found = _own_parts(_clean((dark > level).astype(np.uint8)))
        if found is None:
            continue
        mask, outline, leak = found
        _, _, w, h = cv2.boundingRect(mask)
        filled = w * h / mask.size
        rim = (mask == 1) & (cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=1) == 0)
        edge = float(steep[rim].mean()) if rim.any() else 0.0
        solid = min(1.0, float(mask.sum()) / (2 * outline))  # ragged shapes are clutter; a solid blade reaches 1
        border = float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())
        score = filled * edge * solid * (1 - leak / outline) * (1 - border) * (0.4 + 0.6 * variance[level])
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
    side = min(mask.shape) - 2
    reach = 2 * max(1, round(side / 40)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    hair = np.ones((3, 3) if side > 40 else (2, 2), np.uint8)
    wide = cv2.copyMakeBorder(mask, reach, reach, reach, reach, cv2.BORDER_REPLICATE)
    wide = cv2.morphologyEx(cv2.morphologyEx(wide, cv2.MORPH_CLOSE, disc), cv2.MORPH_OPEN, hair)
    return np.asarray(wide[reach:-reach, reach:-reach], np.uint8)


def _own_parts(framed: Pixels) -> tuple[Pixels, float, float] | None:
    """(mask, pixels of its outline, those of them where it goes on outside) of what belongs to the box, if anything.

    `framed` is the thresholded box with one pixel of its surroundings on each side.
    """
    inner = np.ascontiguousarray(framed[1:-1, 1:-1])
    count, labels, stats, _ = cv2.connectedComponentsWithStats(inner, connectivity=8)
    leak = np.zeros(count, np.int64)
    for own, beyond in (
        (labels[0], framed[0, 1:-1]),
        (labels[-1], framed[-1, 1:-1]),
        (labels[:, 0], framed[1:-1, 0]),
        (labels[:, -1], framed[1:-1, -1]),
    ):
        leak += np.bincount(own[beyond > 0], minlength=count)
    core = cv2.erode(framed, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    outline = np.bincount(labels[(inner == 1) & (core == 0)], minlength=count) + leak
    belongs = leak <= LEAK * outline
    belongs[0] = False
    size = stats[:, cv2.CC_STAT_AREA] * belongs
    if not size.any():
        return None
    keep = belongs & (size >= PART * size.max())
    return keep[labels].astype(np.uint8), float(outline[keep].sum()), float(leak[keep].sum())
