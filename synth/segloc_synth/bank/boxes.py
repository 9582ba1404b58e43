"""Masks from boxes: what stands out in a box that was drawn tight around an object, and how far to trust it."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.bank.labelled import MIN_TRUST
from segloc_synth.bank.trust import MEASURES, NEAR, View, coarse, expected_overlap, measure, overlaps, slopes
from segloc_synth.colour import palette
from segloc_synth.sources.images import WHITE, Pixels
from segloc_synth.sources.masks import exact_mask
from segloc_synth.sources.problems import LITTLE_TRUST
from segloc_synth.sources.records import Annotation, Box
from segloc_synth.sources.text import BadLabel

Array = npt.NDArray[np.float32]

WORK = 64  # pixels of a box's side at working scale, at most; smaller boxes are enlarged to half of it
MARGIN = 10  # working pixels around the box
INNER = (slice(MARGIN, -MARGIN),) * 2
LEVELS = 8  # thresholds tried in a plane
FLOOR = 0.04  # range of darkness in a box below which nothing stands out
LEAKS = (0.15, 0.6)  # a part is clutter when more of its outline goes on outside: a strict and a lenient view
SMALLER = 0.8  # of the box's area, below which another box is inside or beside it rather than around it
FOREIGN = 0.8  # of a part in such a box, above which it is that box's
PART = 0.2  # parts of at least this share of the largest belong to the object: handles, the blades of scissors
TOPS = 5  # candidates that are varied
TIE = 0.01  # of trust
ALIKE = 0.93  # overlap from which two candidates are one
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
DISCS = {side: cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in (5, 7, 9)}
DENSITY = palette.DENSITY.astype(np.float32) / palette.UNIT  # e-folds by channel value


class Doubtful(BadLabel):
    """A mask derived from a box whose `trust`, 0 to 1, is too little."""

    def __init__(self, trust: float) -> None:
        super().__init__(LITTLE_TRUST)
        self.trust = trust


def annotation_mask(
    annotation: Annotation, pixels: Pixels, others: Sequence[Annotation] = (), min_trust: float = MIN_TRUST
) -> tuple[Pixels, float]:
    """The 0/1 mask, uint8 [H, W], of one annotation of a scan, RGB uint8 [H, W, 3], and its trust, 0 to 1.

    An annotation that has only a box gets the object found inside it; `others` are those of the same scan. Masks that
    are the data set's have trust 1.

    Raises:
        BadLabel: the label cannot be decoded, lies outside the picture, or no object stands out in its box.
        Doubtful: one does, with a trust of less than `min_trust`.
    """
    if not annotation.derived:
        return exact_mask(annotation, *pixels.shape[:2]), 1.0
    assert annotation.box is not None, "it has either"
    found = mask_from_box(pixels, annotation.box, [one.box for one in others if one.box and one is not annotation])
    if found is None:
        raise BadLabel("box in which no object stands out")
    if found[1] < min_trust:
        raise Doubtful(found[1])
    return found


def mask_from_box(pixels: Pixels, box: Box, others: Sequence[Box] = ()) -> tuple[Pixels, float] | None:
    """The object in `box`, inside the picture RGB uint8 [H, W, 3]: a 0/1 mask uint8 [H, W], and its trust, 0 to 1.

    Of all candidates() that one whose overlap with the object is expected to be largest: this is its trust; of those
    as good within TIE the one whose outline follows edges best. None when nothing stands out, or too thin for a pixel.
    """
    found = candidates(pixels, box, others)
    if found is None:
        return None
    (left, top, right, bottom), masks, measured = found
    score = expected_overlap(measured)
    edges = measured[:, list(MEASURES).index("edges in darkness")]
    best = int(np.where(score >= score.max() - TIE, edges, -np.inf).argmax())
    whole = np.zeros(pixels.shape[:2], np.uint8)
    shape = (right - left, bottom - top)
    whole[top:bottom, left:right] = cv2.resize(masks[best].astype(np.float32), shape) >= 0.5
    return (whole, round(float(score[best]), 4)) if whole.any() else None


def candidates(
    pixels: Pixels, box: Box, others: Sequence[Box] = ()
) -> tuple[tuple[int, int, int, int], list[Pixels], Array] | None:
    """What the object in `box` of a picture, RGB uint8 [H, W, 3], may be, or None when nothing stands out.

    Returns the box in whole pixels (left, top, right, bottom), 0/1 masks of it at working scale, uint8 [h, w], and
    their measures, float32 [N, len(MEASURES)].

    Darkness and the densities of red and blue, as they stand and less what the surroundings continue into the box, are
    each cut at several thresholds; parts that go on outside the box, or lie in a smaller one of the `others`, are
    dropped. The best of these are varied: filled, grown, shrunk, smoothed, joined.
    """
    height, width = pixels.shape[:2]
    left, top = round(box[0]), round(box[1])
    right, bottom = min(width, max(left + 1, round(box[0] + box[2]))), min(height, max(top + 1, round(box[1] + box[3])))
    if min(right - left, bottom - top) < 3:
        return None
    bounds = (left, top, right, bottom)
    small, scale = _working(pixels, bounds)
    planes, over, odd = _planes(small)
    low, high = np.quantile(planes[INNER][..., 0], (0.03, 0.97))
    if high - low < FLOOR:
        return None
    foreign = _foreign(planes[..., 0].shape, bounds, scale, others)[INNER]
    cut = list(_thresholded([planes[..., 0], planes[..., 1], *np.moveaxis(over, 2, 0), odd], foreign))
    if not cut:
        return None
    masks, plane_of = [mask for mask, _ in cut], np.array([plane for _, plane in cut])
    size = float(np.log(((right - left) * (bottom - top)) ** 0.5 / max(height, width)))
    around = MARGIN - NEAR
    outside = np.ones(planes.shape[:2], bool)
    outside[INNER] = False
    x, y = slopes(np.ascontiguousarray(planes[..., 0]))
    clutter = float(np.sqrt(x * x + y * y)[outside].mean())
    pixel = float(np.log(min(right - left, bottom - top)))
    view = View(planes[around:-around, around:-around], np.sort(planes[outside, 0]), size, pixel, clutter)
    shown = coarse(masks)
    measured = measure(masks, shown, view, shown, plane_of)
    more = _varied([masks[place] for place in _distinct(expected_overlap(measured), shown)])
    return bounds, masks + more, np.concatenate([measured, measure(more, coarse(more), view, shown, plane_of)])


def _working(pixels: Pixels, bounds: tuple[int, int, int, int]) -> tuple[Pixels, tuple[float, float]]:
    """The box and MARGIN around it at working scale, white beyond the picture, and the scale along x and y."""
    left, top, right, bottom = bounds
    height, width = pixels.shape[:2]
    sides = [
        min(WORK, side) if side >= WORK // 2 else min(WORK // 2, 2 * side) for side in (right - left, bottom - top)
    ]
    across, down = (max(6, side) for side in sides)
    x, y = across / (right - left), down / (bottom - top)
    wide, high = int(np.ceil(MARGIN / x)), int(np.ceil(MARGIN / y))
    x0, y0, x1, y1 = left - wide, top - high, right + wide, bottom + high
    crop = cv2.copyMakeBorder(
        pixels[max(0, y0) : y1, max(0, x0) : x1],
        *(max(0, -y0), max(0, y1 - height), max(0, -x0), max(0, x1 - width)),
        cv2.BORDER_CONSTANT,
        value=(WHITE, WHITE, WHITE),
    )
    if min(x, y) < 1:
        crop = cv2.blur(crop, tuple(round(1 / side) | 1 if side < 1 else 1 for side in (x, y)))
    back = np.array([[1 / x, 0, wide - (MARGIN - 0.5) / x - 0.5], [0, 1 / y, high - (MARGIN - 0.5) / y - 0.5]])
    shape = (across + 2 * MARGIN, down + 2 * MARGIN)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(crop, back, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8), (x, y)


def _foreign(
    shape: tuple[int, ...], bounds: tuple[int, int, int, int], scale: tuple[float, float], others: Sequence[Box]
) -> npt.NDArray[np.bool_]:
    """Where, at working scale, there are other boxes that are clearly smaller than this one."""
    foreign = np.zeros(shape, bool)
    left, top, right, bottom = bounds
    for x, y, w, h in others:
        if w * h < SMALLER * (right - left) * (bottom - top):
            x0, x1 = (max(0, round(MARGIN + (side - left) * scale[0])) for side in (x, x + w))
            y0, y1 = (max(0, round(MARGIN + (side - top) * scale[1])) for side in (y, y + h))
            foreign[y0:y1, x0:x1] = True
    return foreign


def _planes(small: Pixels) -> tuple[Array, Array, Array]:
    """Of RGB [h, w, 3]: darkness and densities of red and blue, float32 [h, w, 3]; the same over what surrounds the
    box, continued into it; and how much commoner a pixel's colour is in the box than around, float32 [h, w]."""
    soft = cv2.GaussianBlur(small, (3, 3), 0)
    density = cv2.LUT(soft, DENSITY)
    red, blue = density[..., 0], density[..., 2]
    # The weakest channel counts twice: saturated colours are material too.
    dark = 1 - (soft.sum(axis=2, dtype=np.int32) + soft.min(axis=2)).astype(np.float32) / (4 * WHITE)
    planes = np.dstack([dark, red, blue])
    around = np.ones(dark.shape, np.float32)
    around[INNER] = 0
    over = planes - _continued(planes * around[..., None], around)
    code = np.clip(dark * 16, 0, 15).astype(np.int32) * 16 + np.clip((red - blue) * 4 + 8, 0, 15).astype(np.int32)
    inside, outside = (_histogram(part) for part in (code[INNER], code[around > 0]))
    odd = cv2.GaussianBlur(np.log((inside + 0.002) / (outside + 0.002)).ravel()[code], (3, 3), 0)
    return planes, np.asarray(over, np.float32), np.asarray(odd, np.float32)


def _histogram(code: npt.NDArray[np.int32]) -> Array:
    counts = np.bincount(code.ravel(), minlength=256).reshape(16, 16).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(counts, (0, 0), 1.0) / code.size, np.float32)


def _continued(values: Array, weight: Array) -> Array:
    """Values [h, w, C], 0 where `weight` [h, w] is, continued smoothly from where it is 1 (pull-push, Gortler 1996)."""
    height, width = weight.shape
    if min(height, width) <= 2:
        return np.broadcast_to(values.sum((0, 1)) / max(float(weight.sum()), 1e-6), values.shape).astype(np.float32)
    half = ((width + 1) // 2, (height + 1) // 2)
    coarser = _continued(*(cv2.resize(plane, half, interpolation=cv2.INTER_AREA) for plane in (values, weight)))
    return np.asarray(values + (1 - weight)[..., None] * cv2.resize(coarser, (width, height)), np.float32)


def _thresholded(planes: Sequence[Array], foreign: npt.NDArray[np.bool_]) -> Iterator[tuple[Pixels, int]]:
    """Candidates: 0/1 masks of the box, uint8 [h, w], each with the number of the plane that it was cut from."""
    near, far, within = MARGIN - 2, 1 - MARGIN, slice(MARGIN, -MARGIN)  # two pixels out
    crossed = bool(foreign.any())
    for number, plane in enumerate(planes):
        plane = np.ascontiguousarray(plane)
        for level in _levels(plane[INNER]):
            framed = cv2.morphologyEx((plane > level).astype(np.uint8), cv2.MORPH_CLOSE, CROSS)
            framed = cv2.morphologyEx(framed, cv2.MORPH_OPEN, CROSS)
            count, labels, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(framed[INNER]))
            area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
            area[0] = 0
            if crossed:
                area[np.bincount(labels[foreign], minlength=count) > FOREIGN * area] = 0
            own = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
            beyond = (framed[near, within], framed[far, within], framed[within, near], framed[within, far])
            leak = np.bincount(own[np.concatenate(beyond) > 0], minlength=count) / (2 * np.sqrt(np.pi * area) + 1e-9)
            last = b""
            for most in LEAKS:
                size = area * (leak <= most)
                keep = size > max(0.0, PART * float(size.max()))
                if keep.any() and keep.tobytes() != last:
                    last = keep.tobytes()
                    yield keep.view(np.uint8)[labels], number


def _levels(inner: Array) -> Array:
    """Thresholds: half at equal shares of the pixels, half at equal steps."""
    ordered = np.sort(inner, axis=None)
    at = [ordered[int(share * (ordered.size - 1))] for share in (*np.linspace(0.05, 0.95, LEVELS // 2), 0.03, 0.98)]
    return np.unique(np.array([*at[:-2], *np.linspace(at[-2], at[-1], LEVELS // 2 + 2)[1:-1]], np.float32))


def _distinct(score: Array, shown: Array) -> list[int]:
    """Places of the TOPS best candidates of which no two are alike, best first."""
    alike, chosen = overlaps(shown, shown), list[int]()
    for place in np.argsort(-score, kind="stable").tolist():
        if all(alike[place, other] < ALIKE for other in chosen):
            chosen.append(place)
        if len(chosen) == TOPS:
            break
    return chosen


def _varied(masks: Sequence[Pixels]) -> list[Pixels]:
    """Each mask filled, as its hull, closed, opened, grown and shrunk; and pairs of the first four joined."""
    made = []
    for mask in masks:
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        made.append(cv2.drawContours(np.zeros_like(mask), outlines, -1, 1, cv2.FILLED))
        made.append(cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(np.concatenate(outlines)), 1))
        wide = cv2.morphologyEx(cv2.copyMakeBorder(mask, 8, 8, 8, 8, cv2.BORDER_CONSTANT), cv2.MORPH_CLOSE, DISCS[9])
        made.append(np.ascontiguousarray(wide[8:-8, 8:-8]))
        made += [cv2.morphologyEx(mask, cv2.MORPH_OPEN, DISCS[side]) for side in (5, 7)]
        made += [cv2.dilate(mask, CROSS), cv2.erode(mask, CROSS)]
    made += [one | other for place, one in enumerate(masks[:4]) for other in masks[:place]]
    return [np.asarray(mask, np.uint8) for mask in made if mask.any()]
