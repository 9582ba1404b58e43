"""How far a mask derived from a box can be trusted: measures of each candidate, and what they tell of its overlap.

The measures are those by which a person would judge a mask drawn in a box: it reaches all four sides, its outline
follows edges, it does not go on outside, it is darker than what surrounds it, and other ways of cutting the box open
agree with it. The score is the overlap (intersection over union) to be expected, as a small network with one hidden
layer has learnt it on simulated scans, whose masks are exact; times a power of the share of the outline that is seen,
whatever the network says: what it learnt of simulated clutter holds less in other clutter than this does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from segloc_synth.bank.trust_weights import BIAS, HIDDEN, MEASURES, OUT, OUT_BIAS
from segloc_synth.sources.images import Pixels

Array = npt.NDArray[np.float32]

NEAR = 4  # pixels around the box in which outlines and surroundings are looked at
COARSE = 32  # side of the pictures in which candidates are compared
LEAST = np.array([0.08, 0.15, 0.15], np.float32)  # ranges of darkness, red and blue density taken to be contrast
STEEP = (0.03, 0.08, 0.08)  # slopes of the three per pixel from which an edge counts half
SEEN = "outline uphill"  # share of the outline along which it grows darker inwards
CAUTION = 2  # power of that share in the overlap to be expected
FAR = 3.0  # standard deviations beyond which a measure tells no more
SQUARE = np.ones((3, 3), np.uint8)
REACH = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))


@dataclass(frozen=True)
class View:
    """A box at working scale.

    Attributes:
        planes: darkness and optical densities of red and blue, float32 [h + 2 NEAR, w + 2 NEAR, 3].
        outside: darkness of the wider surroundings, float32, ascending.
        size: logarithm of the root of the box's area relative to the scan's longer side.
        pixels: logarithm of the narrower side of the box, in pixels of the scan.
        clutter: mean slope of darkness a pixel in the wider surroundings.
    """

    planes: Array
    outside: Array
    size: float
    pixels: float
    clutter: float


def coarse(masks: Sequence[Pixels]) -> Array:
    """0/1 masks uint8 [h, w] as shares, float32 [N, COARSE * COARSE], to be compared."""
    shrunk = [cv2.resize(mask * np.uint8(255), (COARSE, COARSE), interpolation=cv2.INTER_AREA) for mask in masks]
    return np.stack(shrunk).reshape(len(masks), -1).astype(np.float32) / np.float32(255)


def overlaps(one: Array, other: Array) -> Array:
    """Intersection over union of coarse masks [N, P] and [M, P], float32 [N, M]."""
    both = one @ other.T
    return np.asarray(both / np.maximum(one.sum(1)[:, None] + other.sum(1)[None] - both, 1e-3), np.float32)


def learnt_overlap(measured: Array) -> Array:
    """The overlap with the object, 0 to 1, float32 [N], that the network expects of measures [N, len(MEASURES)]."""
    mean, spread = np.array([row[:2] for row in MEASURES.values()], np.float32).T
    hidden = np.tanh(
        np.clip((measured - mean) / spread, -FAR, FAR) @ np.array(HIDDEN, np.float32) + np.array(BIAS, np.float32)
    )
    return np.asarray(1 / (1 + np.exp(-(hidden @ np.array(OUT, np.float32) + np.float32(OUT_BIAS)))), np.float32)


def expected_overlap(measured: Array) -> Array:
    """learnt_overlap() times SEEN to the power of CAUTION, 0 to 1, float32 [N]."""
    return np.asarray(learnt_overlap(measured) * measured[:, list(MEASURES).index(SEEN)] ** CAUTION, np.float32)


def measure(
    masks: Sequence[Pixels], shown: Array, view: View, others: Array, plane_of: npt.NDArray[np.integer[Any]]
) -> Array:
    """The MEASURES of 0/1 masks, uint8 [h, w] of `view`'s box and none empty, as float32 [N, len(MEASURES)].

    shown: the masks, coarse. others: coarse masks of the candidates that ought to agree, cut from the planes numbered
    in plane_of [M].
    """
    inside = np.stack(masks)
    count, h, w = inside.shape
    dark, red, blue = (np.ascontiguousarray(view.planes[..., channel]) for channel in range(3))
    inner = dark[NEAR:-NEAR, NEAR:-NEAR]
    ordered = np.sort(view.planes[NEAR:-NEAR, NEAR:-NEAR].reshape(-1, 3), axis=0)
    last = len(ordered) - 1
    contrast = np.maximum(ordered[int(0.95 * last)] - ordered[int(0.05 * last)], LEAST)

    # All masks in one tall picture: the rows between them keep them apart.
    tall = np.pad(inside, ((0, 0), (NEAR, NEAR), (NEAR, NEAR))).reshape(-1, w + 2 * NEAR)
    core, grown = cv2.erode(tall, SQUARE), cv2.dilate(tall, SQUARE)
    full, cores, rims, rings = (
        plane.reshape(count, -1).astype(np.float32)
        for plane in (tall, core, tall - core, cv2.dilate(tall, REACH) - grown)
    )
    area, outline = full.sum(1), rims.sum(1)
    flux = [_convergence(plane, steep) for plane, steep in zip((dark, red, blue), STEEP, strict=True)]
    x, y = slopes(dark)
    slope = np.sqrt(x * x + y * y)
    flat = np.stack(
        [plane.ravel() for plane in (*flux, dark, red, blue, dark * dark, red * red, blue * blue, slope)], axis=1
    )
    sums = full @ flat[:, :4]
    uphill = _uphill(tall, rims.reshape(tall.shape), x, y)
    seen, steep = ((uphill > level).sum(1) / outline for level in (STEEP[0] / 2, 0.1 * contrast[0]))
    cores = np.where((cores.sum(1) > 0.3 * area)[:, None], cores, full)
    within = (cores @ flat[:, 3:]) / cores.sum(1)[:, None]
    around = (rings @ flat[:, 3:6]) / np.maximum(rings.sum(1), 1)[:, None]
    half = (within[:, 0] + around[:, 0]) / 2
    over = (within[:, :3] - around) / contrast
    spread = np.sqrt(np.maximum(within[:, 3:6] - within[:, :3] ** 2, 0)) / contrast
    share = area / (h * w)
    between = share * (sums[:, 3] / area - inner.mean()) ** 2 / np.maximum(1 - share, 0.02) / (inner.var() + 1e-5)

    darker = inner.ravel()[None] > half[:, None]
    flat_mask = inside.reshape(count, -1) > 0
    explained = np.count_nonzero(darker & flat_mask, axis=1)
    left = 1 - explained / np.maximum(np.count_nonzero(darker, axis=1), 1)
    rows, cols = (np.asarray(inside.any(axis), np.bool_) for axis in (2, 1))
    (top, bottom), (leftmost, right) = _ends(rows), _ends(cols)
    wide, high = right - leftmost, bottom - top
    edge = np.concatenate([inside[:, 0], inside[:, -1], inside[:, :, 0], inside[:, :, -1]], axis=1) > 0
    a, b = NEAR - 2, NEAR - 1  # two pixels out
    beyond = np.concatenate([dark[a, NEAR:-NEAR], dark[-b, NEAR:-NEAR], dark[NEAR:-NEAR, a], dark[NEAR:-NEAR, -b]])
    leak = np.count_nonzero(edge & (beyond[None] > half[:, None]), axis=1)

    alike = overlaps(shown, others)
    best = np.sort([alike[:, plane_of == plane].max(1) for plane in np.unique(plane_of)], axis=0)
    agree = np.sort(alike, axis=1)
    columns = {
        "narrower side filled": np.minimum(wide, high),
        "sides filled": wide * high,
        "gap to a side": np.max([leftmost, 1 - right, top, 1 - bottom], axis=0),
        "rows and columns met": rows.mean(1) * cols.mean(1),
        "share of the box": share,
        "solidity": area / [_hull(mask) for mask in masks],
        "compactness": 4 * np.pi * area / outline**2,
        "edges in darkness": sums[:, 0] / outline,
        "edges in red": sums[:, 1] / outline,
        "edges in blue": sums[:, 2] / outline,
        "leak": leak / outline,
        "contact": np.count_nonzero(edge, axis=1) / outline,
        "red over the ring": over[:, 1],
        "blue over the ring": over[:, 2],
        "between-class variance": between,
        "as dark outside": 1 - np.searchsorted(view.outside, half) / max(len(view.outside), 1),
        "agreement": agree.mean(1),
        "agreement of the best": agree[:, int(0.8 * (agree.shape[1] - 1))],
        "agreement of planes": best[1:].mean(0) if len(best) > 1 else best[0],
        "size": np.full(count, view.size),
        "unevenness": spread[:, 0],
        "dark left out": left,
        "dark in it": explained / area,
        "outline uphill": seen,
        "outline steep": steep,
        "unevenness in red": spread[:, 1],
        "unevenness in blue": spread[:, 2],
        "slope within": within[:, 6],
        "clutter": np.full(count, view.clutter),
        "darkness": within[:, 0],
        "darkness over the ring": within[:, 0] - around[:, 0],
        "darkness around": np.full(count, view.outside.mean()),
        "pixels": np.full(count, view.pixels),
    }
    return np.stack([columns[name] for name in MEASURES], axis=1).astype(np.float32)


def _convergence(plane: Array, steep: float) -> Array:
    """Where edges close in on something dark: the divergence of the slope's direction, negated.

    Summed over a mask it is the flux through its outline (Vasilevskiy and Siddiqi 2002), 1 a pixel along a clean edge.
    """
    x, y = slopes(plane)
    slope = np.sqrt(x * x + y * y) + steep
    inward = cv2.Sobel(x / slope, cv2.CV_32F, 1, 0, scale=1 / 8) + cv2.Sobel(y / slope, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(-inward, np.float32)


def slopes(plane: Array) -> tuple[Array, Array]:
    """Slopes along x and y, a pixel, float32 [h, w] each."""
    x, y = (cv2.Sobel(plane, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def _uphill(tall: Pixels, rims: Array, x: Array, y: Array) -> Array:
    """Slope of darkness into the mask at each pixel of its outline, 0 elsewhere: float32 [N, h * w].

    tall: N masks one below the other, uint8 [N * h, w]; rims: 1 on their outlines. x, y: slopes of darkness [h, w].
    """
    inward = slopes(cv2.GaussianBlur(tall * np.float32(1), (5, 5), 0))
    length = np.sqrt(inward[0] ** 2 + inward[1] ** 2) + np.float32(1e-6)
    shape = (-1, *x.shape)
    along = (inward[0].reshape(shape) * x + inward[1].reshape(shape) * y) / length.reshape(shape)
    return np.asarray((along * rims.reshape(shape)).reshape(len(along), -1), np.float32)


def _ends(met: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """First and last place met, [N], as shares of the side, of bool [N, side]."""
    side = met.shape[1]
    return met.argmax(1) / side, 1 - met[:, ::-1].argmax(1) / side


def _hull(mask: Pixels) -> float:
    """Pixels of the convex hull."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    hull = cv2.convexHull(np.concatenate(outlines))
    return float(cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + 1)
