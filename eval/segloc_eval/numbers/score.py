"""COCO average precision and recall, for boxes and masks, equal to pycocotools' to nine digits."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from segloc_eval.numbers.matches import TRUE, Kind, Matches, changes, concatenate, matches
from segloc_eval.numbers.precision import PRECISIONS, average_precision, mean, summary

__all__ = ["MEAN", "OVERALL", "POOLED", "Kind", "Scores", "score", "score_matches", "score_splits"]
MEAN, POOLED = "mean", "pooled"  # overall of several splits: the mean of their scores; the score of all their scans
OVERALL = (*PRECISIONS, "AR@1", "AR@10", "AR@100", "ARs", "ARm", "ARl")
DETECTIONS = (1, 10, 100)  # best detections counted per image and class


class Scores(TypedDict):
    """`overall`: one number in 0..1 per name in OVERALL; `per_class`: AP per class name.

    None where no ground truth of that size or class exists (COCO's -1).
    """

    overall: dict[str, float | None]
    per_class: dict[str, float | None]


def score(truth: dict[str, Any], results: Sequence[dict[str, Any]], kind: Kind) -> Scores:
    """COCO scores of `results` (a results JSON's list) against `truth` (a COCO data set's dict).

    Results hold image_id, category_id, score and `bbox` (x, y, w, h in pixels) or `segmentation` (RLE);
    truth's annotations hold id, area and iscrowd as well. Neither is changed. The definitions are those of
    pycocotools' COCOeval: IoU 0.50 to 0.95 by 0.05, 101 recall points, at most 100 detections of a class and image.
    ValueError for results on an image that truth does not have.
    """
    return score_matches(matches(truth, results, kind))


def score_matches(table: Matches) -> Scores:
    """The scores that a table of matches holds."""
    precision = average_precision(table, np.ones((1, table.images), np.int64))
    recall = _recall(table)
    recalls = [
        *(mean(recall[limit, :, 0].ravel()) for limit in range(len(DETECTIONS))),
        *(mean(recall[-1, :, area].ravel()) for area in (1, 2, 3)),
    ]
    values = [*(value[0] for value in summary(precision).values()), *recalls]
    return Scores(
        overall={name: number(value) for name, value in zip(OVERALL, values, strict=True)},
        per_class=dict(zip(table.classes, map(number, mean(precision[0, :, 0])), strict=True)),
    )


def score_splits(tables: Mapping[str, Matches]) -> dict[str, Scores]:
    """Scores by split; where there are several, MEAN and POOLED too."""
    return with_overalls(tables, concatenate, score_matches)


P = TypeVar("P")


def with_overalls(
    parts: Mapping[str, P], join: Callable[[list[P]], P], read: Callable[[P], Scores]
) -> dict[str, Scores]:
    """What `read` makes of each split's part; of several also the mean of the scores, and those of all parts joined."""
    scores = {split: read(part) for split, part in parts.items()}
    if len(parts) > 1:
        every = list(scores.values())
        scores[MEAN] = Scores(
            overall=_mean_of([one["overall"] for one in every]), per_class=_mean_of([one["per_class"] for one in every])
        )
        scores[POOLED] = read(join(list(parts.values())))
    return scores


def _mean_of(splits: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Mean over the splits that have the number."""
    there = {name: [value for one in splits if (value := one[name]) is not None] for name in splits[0]}
    return {name: sum(values) / len(values) if values else None for name, values in there.items()}


def number(value: Any) -> float | None:
    """A float for JSON; None for NaN."""
    return None if np.isnan(value) else float(value)


def _recall(table: Matches) -> NDArray[np.float64]:
    """Share of objects found [limit of DETECTIONS, class, size range, threshold]; NaN where there is none."""
    first = np.flatnonzero(changes(table.label, table.image))
    rank = np.arange(len(table.label)) - np.repeat(first, np.diff([*first, len(table.label)]))
    rows, area, at = np.nonzero(table.state == TRUE)
    shape = (len(table.classes), *table.state.shape[1:])
    cell = np.ravel_multi_index((table.label[rows], area, at), shape)
    found = np.stack(
        [np.bincount(cell[rank[rows] < limit], minlength=math.prod(shape)).reshape(shape) for limit in DETECTIONS]
    )
    objects = np.stack([table.counted[table.object_label == label].sum(0) for label in range(shape[0])])[..., None]
    return np.where(objects > 0, found / np.maximum(objects, 1), np.nan)
