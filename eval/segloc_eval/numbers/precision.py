"""Average precision of any resampling of the images, read from one table of matches.

Each image has a whole number as its weight: weights of one give COCO's numbers, weight w those of the data set with
that image there w times. Thousands of bootstrap draws so cost one matching.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segloc_eval.numbers.matches import FALSE, IGNORED, RANGES, THRESHOLDS, TRUE, Matches, changes

RECALLS = np.linspace(0.0, 1.0, 101)  # at which precision is read
PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
_BLOCK = 64  # draws counted at a time


def average_precision(table: Matches, weights: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """AP [B, class, size range, threshold] for whole weights per image [B, N] >= 0; NaN where nothing is to be found.

    The order is by falling score, then image, then rank within the image: a detection of weight w stands w times in
    its place. (The repeated data set of the module's docstring has copies of an image side by side; where two
    detections of one class and image have equal scores, it would interleave them, and this does not.)
    Sums are exact up to 2^31 detections.
    """
    shape = (len(weights), len(table.classes), len(RANGES), len(THRESHOLDS))
    out: NDArray[np.float64] = np.full(shape, np.nan)
    order = np.lexsort((-table.score, table.label))
    bounds = np.searchsorted(table.label[order], np.arange(len(table.classes) + 1))
    curves = {}
    for label, area in np.ndindex(shape[1:3]):
        rows = order[bounds[label] : bounds[label + 1]]
        objects = table.object_image[(table.object_label == label) & table.counted[:, area]]
        if len(objects):
            curves[label, area] = _curves(table.image[rows], table.state[rows, area], objects)
    for first in range(0, len(weights), _BLOCK):
        block = weights[first : first + _BLOCK].astype(np.int32)
        for place, ready in curves.items():
            out[first : first + _BLOCK, *place] = _by_threshold(block, ready)
    return out


def summary(precision: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """PRECISIONS, each [B], of `average_precision`'s [B, class, size range, threshold]: means over what exists."""
    thresholds = slice(None), slice(0, 1), slice(5, 6), *[slice(None)] * 3  # all, 0.5, 0.75
    areas = 0, 0, 0, 1, 2, 3
    return {
        name: mean(precision[:, :, area, at], (1, 2))
        for name, at, area in zip(PRECISIONS, thresholds, areas, strict=True)
    }


def mean(values: NDArray[np.float64], axis: int | tuple[int, ...] = -1) -> NDArray[np.float64]:
    """Mean over the entries that are numbers; NaN when none is."""
    there = ~np.isnan(values)
    total, count = np.where(there, values, 0.0).sum(axis), there.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


class _Curves(NamedTuple):
    """What the precision of one class and size range is read from.

    objects: images of the objects [m]; others: images of the detections that are not false at every threshold [k], in
    order; false: images of those that are; starts, place: where runs of them start, and the other that each precedes;
    states: int8 [threshold, k].
    """

    objects: NDArray[np.int64]
    others: NDArray[np.int64]
    false: NDArray[np.int64]
    starts: NDArray[np.int64]
    place: NDArray[np.int64]
    states: NDArray[np.int8]


def _curves(image: NDArray[np.int64], state: NDArray[np.int8], objects: NDArray[np.int64]) -> _Curves:
    """From the images [n] and states [n, threshold] of detections in order, and the objects' images."""
    lowest, highest = state.min(1, initial=IGNORED), state.max(1, initial=FALSE)
    others = np.flatnonzero((lowest != highest) | (lowest == TRUE))
    false = np.flatnonzero(highest == FALSE)
    place = np.searchsorted(others, false)  # how many of the others come before
    false, place = false[place < len(others)], place[place < len(others)]
    starts = np.flatnonzero(changes(place))
    return _Curves(objects, image[others], image[false], starts, place[starts], np.ascontiguousarray(state[others].T))


def _by_threshold(block: NDArray[np.int32], curves: _Curves) -> NDArray[np.float64]:
    """AP [B, threshold] under weights [B, N].

    Precision matters only where an object is found. Nearly all detections are false at every threshold, so they are
    summed once, up to each of the others.
    """
    positives = block.take(curves.objects, 1).sum(1)
    weight = block.take(curves.others, 1)
    total = weight.copy()
    if len(curves.starts):
        total[:, curves.place] += np.add.reduceat(block.take(curves.false, 1), curves.starts, axis=1)
    total = np.cumsum(total, axis=1, dtype=np.int32)
    objects = np.maximum(positives, 1)[:, None]
    out: NDArray[np.float64] = np.full((len(block), len(curves.states)), np.nan)
    for at, state in enumerate(curves.states):
        true, ignored = np.flatnonzero(state == TRUE), state == IGNORED
        seen = total.take(true, 1)
        if ignored.any():
            seen -= np.cumsum(weight * ignored, axis=1, dtype=np.int32).take(true, 1)
        found = np.cumsum(weight.take(true, 1), axis=1, dtype=np.int32)
        precision = found / np.maximum(seen, 1)
        precision = np.fmax.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # thrice as fast as maximum
        reached = np.diff(_reached(found, objects), axis=1, prepend=0)
        out[:, at] = np.where(positives > 0, np.einsum("ij,ij->i", precision, reached) / len(RECALLS), np.nan)
    return out


def _reached(found: NDArray[np.int32], objects: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of RECALLS are at most found / objects, as floats compare (35 of 100 misses 0.35000000000000003)."""
    recall = found / objects
    last = (recall * 100 + 1e-9).astype(np.int64)  # the only one in doubt
    return last + (RECALLS.take(last) <= recall)
