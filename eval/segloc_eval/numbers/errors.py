"""What goes wrong: kinds of error (tide.py), recall over size and clutter, confusions, precision over recall.

All at IoU 0.5. Gains and curves regard all detections, as AP does. Everything that needs a choice of detections takes
the N with the best scores over all scans, N being the number of objects, so that nobody has to choose a threshold:
the counts, the recalls and the confusion matrix.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from segloc_eval.numbers.matches import TRUE, Kind, read_objects
from segloc_eval.numbers.precision import RECALLS
from segloc_eval.numbers.semantic import BACKGROUND, apart
from segloc_eval.numbers.tide import ERRORS, Run, count_errors, examine, gains, precision_curves

BINS, IN_BIN = 5, 10  # as many bins, with at least so many objects each
ALL = "all"  # the curve of all classes together
RING = 0.25  # the ring around a box is this share of its sides wide


class Bin(TypedDict):
    """Objects with low <= value <= high; recall with Wilson's 95 % interval, which takes objects as independent."""

    low: float
    high: float
    objects: int
    recall: float
    interval: tuple[float, float]


class Diagnosis(TypedDict):
    """Means over the seeds; as JSON holds it.

    counts, gain: by ERRORS, errors among the N best-scored detections (and objects they miss), and AP50 gained if no
    such error were made; size: bins of sqrt(box area) in pixels; clutter: bins of what was measured, None without;
    confusion: `counts[true][predicted]` of `classes`, the background last; curves: by class that has objects, and
    their mean `all`: 101 recalls and the precisions there, whose mean is AP50.
    """

    counts: dict[str, float]
    gain: dict[str, float]
    size: list[Bin]
    clutter: list[Bin] | None
    confusion: dict[str, Any]
    curves: dict[str, dict[str, list[float]]]


def diagnose(
    truths: Mapping[str, dict[str, Any]],
    found: Mapping[int, Mapping[str, Sequence[dict[str, Any]]]],
    kind: Kind,
    clutters: Mapping[str, Mapping[Any, float]] | None = None,
) -> Diagnosis:
    """The errors of one arm on all splits together: COCO data sets by split, COCO results by seed and split.

    clutters: by split and annotation id, as `clutter` measures it; objects without are left out of its bins.
    ValueError without a seed.
    """
    if not found:
        raise ValueError("no results to diagnose")
    names = {category["id"]: category["name"] for category in next(iter(truths.values()))["categories"]}
    classes = [names[id] for id in sorted(names)]
    runs = [examine(truths, results, kind) for results in found.values()]
    counted = runs[0].counted
    recalls = np.mean([run.found(run.best) for run in runs], axis=0)
    boxes = np.concatenate([read_objects(truth, "bbox").shape for truth in truths.values()])
    size = np.sqrt(boxes[:, 2] * boxes[:, 3])
    curves = np.mean([precision_curves(run, len(classes)) for run in runs], axis=0)
    measured = None
    if clutters is not None:
        around = [
            clutters.get(split, {}).get(id, np.nan)
            for split, truth in truths.items()
            for id in read_objects(truth, "bbox").id
        ]
        measured = np.array(around, np.float64)
        there = counted & ~np.isnan(measured)
    return Diagnosis(
        counts=_named(np.mean([count_errors(run) for run in runs], axis=0)),
        gain=_named(np.mean([gains(run, len(classes)) for run in runs], axis=0)),
        size=_bins(size[counted], recalls[counted]),
        clutter=None if measured is None else _bins(measured[there], recalls[there]),
        confusion={
            "classes": [*classes, apart(BACKGROUND, classes)],
            "counts": np.mean([_confusion(run, len(classes)) for run in runs], axis=0).tolist(),
        },
        curves={
            name: {"recall": RECALLS.round(2).tolist(), "precision": curve.round(5).tolist()}
            for name, curve in zip((*classes, apart(ALL, classes)), [*curves, _mean_curve(curves)], strict=True)
            if not np.isnan(curve).any()
        },
    )


def clutter(pixels: NDArray[np.uint8], box: Sequence[float]) -> float | None:
    """How much lies around a box (x, y, w, h): mean darkness 1 - grey / 255 in a ring, 0 (empty belt) to 1.

    A stand-in for occlusion, which scans are not labelled with: what attenuates beside an object mostly attenuates
    over it too. It does not see what lies exactly over the object, and counts other objects in the ring as clutter.
    The ring is a quarter of the box's sides wide, at least 2 pixels, and cut at the border. pixels: uint8 [H, W] or
    [H, W, 3], white where nothing is. None where the box leaves no ring.
    """
    x, y, w, h = box
    wide, high = max(2.0, RING * w), max(2.0, RING * h)
    outer = _span(x - wide, x + w + wide, pixels.shape[1]), _span(y - high, y + h + high, pixels.shape[0])
    inner = _span(x, x + w, pixels.shape[1]), _span(y, y + h, pixels.shape[0])
    grey = pixels.astype(np.float64)
    grey = grey.mean(-1) if grey.ndim == 3 else grey
    around, inside = (grey[rows, columns] for columns, rows in (outer, inner))
    count = around.size - inside.size
    return float(1 - (around.sum() - inside.sum()) / count / 255) if count > 0 else None


def _span(low: float, high: float, limit: int) -> slice:
    return slice(min(max(round(low), 0), limit), min(max(round(high), 0), limit))


def _mean_curve(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    there = curves[~np.isnan(curves).any(1)]
    return there.mean(0) if len(there) else np.full(curves.shape[1], np.nan)


def _confusion(run: Run, classes: int) -> NDArray[np.float64]:
    """Counts [true, predicted], the background last, of the N best and the objects they leave."""
    out = np.zeros((classes + 1, classes + 1))
    at = np.where(run.state == TRUE, run.target, run.confused)[run.best]
    true = np.where(at >= 0, run.object_label[at], classes) if len(run.object_label) else np.full(len(at), classes)
    np.add.at(out, (true, run.label[run.best]), 1)
    left = run.counted.copy()
    left[at[at >= 0]] = False
    out[:, classes] += np.bincount(run.object_label[left], minlength=classes + 1)
    return out


def _bins(values: NDArray[np.float64], recalls: NDArray[np.float64]) -> list[Bin]:
    """Bins of about equally many objects: values [m], and the share of the seeds that found each, [m]."""
    if not len(values):
        return []
    count = min(BINS, max(1, len(values) // IN_BIN))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)))
    place = np.searchsorted(edges[1:-1], values, side="right")
    out: list[Bin] = []
    for number in range(max(len(edges) - 1, 1)):
        inside = place == number
        if inside.any():
            recall, objects = float(recalls[inside].mean()), int(inside.sum())
            low, high = float(values[inside].min()), float(values[inside].max())
            out.append(Bin(low=low, high=high, objects=objects, recall=recall, interval=wilson(recall, objects)))
    return out


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `count` >= 1 trials (E. B. Wilson, JASA 22, 1927)."""
    z2 = 1.959964**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, min(share, float(middle - half))), min(1.0, max(share, float(middle + half)))


def _named(values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(ERRORS, values.tolist(), strict=True))
