"""Why each false detection is false, and what AP50 would gain if errors of a kind were not made.

TIDE: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, arXiv 2008.08115;
foreground IoU 0.5, background 0.1; decided in the order of the authors' code (dbolya/tide, tidecv/quantify.py). Other
than there, detections are cut to COCO's 100 of a class and image, and crowds ignored as COCO does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segloc_eval.numbers.matches import (
    FALSE,
    TRUE,
    Kind,
    Things,
    changes,
    match,
    overlaps,
    read_detections,
    read_objects,
)
from segloc_eval.numbers.precision import RECALLS

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, NOTHING, MISSED = range(6)
FOREGROUND, EMPTY = 0.5, 0.1  # IoU from which a detection has found an object; below which it has found nothing


@dataclass(frozen=True)
class Run:
    """One seed: detections in order of class and falling score, what each is, and what became of each object.

    label, score [n]; state int8 [n] FALSE, TRUE or IGNORED; kind int8 [n] a place in ERRORS, -1 where not false;
    target int64 [n] the object that a true detection finds, or that mending would make it find, else -1;
    best: bool [n], one of the N best-scored; confused int64 [n]: the free object of another class that one of the N
    best covers by half, else -1. object_label [m], counted bool [m]: not a crowd.
    """

    label: NDArray[np.int64]
    score: NDArray[np.float64]
    state: NDArray[np.int8]
    kind: NDArray[np.int8]
    target: NDArray[np.int64]
    best: NDArray[np.bool_]
    confused: NDArray[np.int64]
    object_label: NDArray[np.int64]
    counted: NDArray[np.bool_]

    def found(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which objects [m] the chosen detections [n] find."""
        out = np.zeros(len(self.object_label), np.bool_)
        out[self.target[among & (self.state == TRUE)]] = True
        return out

    def missed(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Objects [m] neither found by the chosen detections [n] nor to be found by mending one."""
        near = np.isin(self.kind, (CLASSIFICATION, LOCALISATION)) & among
        out = self.counted & ~self.found(among)
        out[self.target[near]] = False
        return out


def examine(truths: Mapping[str, dict[str, Any]], results: Mapping[str, Sequence[dict[str, Any]]], kind: Kind) -> Run:
    """Match one seed's COCO results by split, all splits together, and explain every false detection."""
    objects, _ = _pool([read_objects(truth, kind) for truth in truths.values()], truths)
    parts = [read_detections(truth, results[split], kind) for split, truth in truths.items()]
    detections, images = _pool(parts, truths)
    detections = detections.take(np.lexsort((detections.image, detections.label)))
    table = match(objects, detections, images, ())
    order = np.lexsort((-detections.score, detections.label))
    detections, state, target = detections.take(order), table.state[order, 0, 0], table.target[order]
    counted = table.counted[:, 0]
    best = np.zeros(len(order), np.bool_)
    shown = np.flatnonzero(state <= TRUE)
    best[shown[np.argsort(-detections.score[shown], kind="stable")[: int(counted.sum())]]] = True
    kinds = np.full(len(order), -1, np.int8)
    confused = np.full(len(order), -1, np.int64)
    target = np.where(state == TRUE, target, -1)
    run = Run(detections.label, detections.score, state, kinds, target, best, confused, objects.label, counted)
    _explain(run, objects, detections)
    return run


def _pool(parts: Sequence[Things], truths: Mapping[str, dict[str, Any]]) -> tuple[Things, int]:
    """All splits' things, images numbered on from split to split; and how many images there are."""
    images = np.cumsum([0, *(len({image["id"] for image in truth["images"]}) for truth in truths.values())])
    joined = {name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])}
    joined["image"] = np.concatenate([part.image + images[place] for place, part in enumerate(parts)])
    return Things(**joined), int(images[-1])


def _explain(run: Run, objects: Things, detections: Things) -> None:
    """Fill in kind, target and confused, image by image."""
    false = run.state == FALSE
    run.kind[false] = NOTHING
    found = run.found(run.best)
    theirs = np.flatnonzero(run.counted)[np.argsort(objects.image[run.counted], kind="stable")]
    rows_at = np.flatnonzero(false)[np.argsort(detections.image[false], kind="stable")]
    starts = np.flatnonzero(changes(detections.image[rows_at]))
    for start, end in pairwise([*starts, len(rows_at)]):
        rows = rows_at[start:end]
        image = detections.image[rows[0]]
        first, last = np.searchsorted(objects.image[theirs], (image, image + 1))
        columns = theirs[first:last]
        if not len(columns):
            continue
        iou = overlaps(detections.shape[rows], objects.shape[columns], objects.crowd[columns])
        alike = detections.label[rows][:, None] == objects.label[columns]
        same, other = np.where(alike, iou, 0.0), np.where(alike, 0.0, iou)
        box, guess = same.max(1), other.max(1)
        loose = (box >= EMPTY) & (box < FOREGROUND)
        conditions = [loose, guess >= FOREGROUND, box >= FOREGROUND, iou.max(1) < EMPTY]
        run.kind[rows] = np.select(conditions, [LOCALISATION, CLASSIFICATION, DUPLICATE, NOTHING], BOTH)
        mended = np.where(loose, same.argmax(1), other.argmax(1))
        run.target[rows] = np.where(loose | (guess >= FOREGROUND), columns[mended], -1)
        _confuse(run, rows, columns, other, found)


def _confuse(
    run: Run, rows: NDArray[np.int64], columns: NDArray[np.int64], other: NDArray[np.float64], found: NDArray[np.bool_]
) -> None:
    """Give each of the N best in an image, best first, the free object of another class that it overlaps most."""
    free = ~found[columns]
    for place in np.argsort(-run.score[rows], kind="stable"):
        overlap = np.where(free, other[place], 0.0)
        if run.best[rows[place]] and overlap.max() >= FOREGROUND:
            run.confused[rows[place]] = columns[overlap.argmax()]
            free[overlap.argmax()] = False


def count_errors(run: Run) -> NDArray[np.float64]:
    """Errors of each kind [ERRORS] among the N best, and objects that they miss."""
    out = np.bincount(run.kind[run.best & (run.kind >= 0)], minlength=len(ERRORS)).astype(np.float64)
    out[MISSED] = run.missed(run.best).sum()
    return out


def gains(run: Run, classes: int) -> NDArray[np.float64]:
    """AP50 gained by mending all errors of each kind [ERRORS], at least 0.

    Several errors at one object: the best-scored mends it, the others go, as do those at an object already found.
    """
    gained = np.zeros(len(ERRORS))
    present = np.flatnonzero(np.bincount(run.object_label[run.counted], minlength=classes))
    if not len(present):
        return gained
    before = precision_curves(run, classes)[present].mean()
    everything = np.ones(len(run.label), np.bool_)
    free = run.counted & ~run.found(everything)
    near = np.isin(run.kind, (CLASSIFICATION, LOCALISATION))
    near[near] = free[run.target[near]]
    rows = np.flatnonzero(near)
    rows = rows[np.argsort(-run.score[rows], kind="stable")]
    mending = np.zeros(len(run.label), np.bool_)
    mending[rows[np.unique(run.target[rows], return_index=True)[1]]] = True
    for kind in range(len(ERRORS)):
        own = run.kind == kind
        shown = (~own | mending) & (run.state <= TRUE)
        true = (run.state == TRUE) | (own & mending)
        label = np.where(own & mending, run.object_label[run.target], run.label)
        objects = run.counted & ~run.missed(everything) if kind == MISSED else run.counted
        counts = np.bincount(run.object_label[objects], minlength=classes)
        after = []
        for place in present:
            chosen = shown & (label == place)
            if counts[place] or chosen.any():  # a class of which nothing is left, neither missed nor found, has no AP
                after.append(precision_curve(run.score[chosen], true[chosen], counts[place]).mean())
        gained[kind] = max(float(np.mean(after or 1.0) - before), 0.0)
    return gained


def precision_curves(run: Run, classes: int) -> NDArray[np.float64]:
    """Precision at RECALLS [class, 101]; NaN for a class without objects."""
    out = np.full((classes, len(RECALLS)), np.nan)
    counts = np.bincount(run.object_label[run.counted], minlength=classes)
    for label in np.flatnonzero(counts):
        own = (run.label == label) & (run.state <= TRUE)
        out[label] = precision_curve(run.score[own], run.state[own] == TRUE, counts[label])
    return out


def precision_curve(score: NDArray[np.float64], true: NDArray[np.bool_], objects: int) -> NDArray[np.float64]:
    """COCO's interpolated precision at RECALLS of detections [n] (equal scores in order); 0 where not reached."""
    out = np.zeros(len(RECALLS))
    if objects and len(score):
        found = np.cumsum(true[np.argsort(-score, kind="stable")])
        precision = np.maximum.accumulate((found / np.arange(1, len(found) + 1))[::-1])[::-1]
        at = np.searchsorted(found / objects, RECALLS)
        out[at < len(found)] = precision[at[at < len(found)]]
    return out
