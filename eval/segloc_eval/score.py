"""COCO average precision and recall, for boxes and masks, by faster-coco-eval (numbers equal pycocotools')."""

from typing import Any, Literal, TypedDict

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

Kind = Literal["bbox", "segm"]
AREAS = ("all", "small", "medium", "large")  # COCO's: all, under 32^2, 32^2 to 96^2, above, in pixels
DETECTIONS = (1, 10, 100)  # best detections counted per image and class
OVERALL = (
    *("AP", "AP50", "AP75", "APs", "APm", "APl"),
    *("AR@1", "AR@10", "AR@100", "ARs", "ARm", "ARl"),
)


class Scores(TypedDict):
    """`overall`: one number in 0..1 per name in OVERALL; `per_class`: AP per class name.

    None where no ground truth of that size or class exists (COCO's -1).
    """

    overall: dict[str, float | None]
    per_class: dict[str, float | None]


def score(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> Scores:
    """COCO scores of `results` (a results JSON's list) against `truth` (a COCO data set's dict).

    Results hold image_id, category_id, score and `bbox` (x, y, w, h in pixels) or `segmentation` (RLE);
    truth's annotations hold id > 0, area and iscrowd as well. Neither is changed. The definitions are those of
    pycocotools' COCOeval: IoU 0.50 to 0.95 by 0.05, 101 recall points, at most 100 detections an image.
    """
    wanted = ("image_id", "category_id", "score", "bbox" if kind == "bbox" else "segmentation")
    found = [{name: result[name] for name in wanted} for result in results]
    reference = COCO(truth, use_deepcopy=True)
    evaluation = COCOeval_faster(
        reference, reference.loadRes(found) if found else _nothing(truth), kind, print_function=_quiet
    )
    evaluation.params.maxDets = list(DETECTIONS)
    evaluation.evaluate()
    evaluation.accumulate()
    params = evaluation.params
    shape = (len(params.iouThrs), len(params.recThrs), len(params.catIds), len(AREAS), len(DETECTIONS))
    # axes: IoU threshold, recall, class, area, detections; -1 where there is no ground truth
    precision = np.asarray(evaluation.eval["precision"]).reshape(shape)
    recall = np.asarray(evaluation.eval["recall"]).reshape(shape[0], *shape[2:])
    names = {category["id"]: category["name"] for category in truth["categories"]}
    return Scores(
        overall=dict(zip(OVERALL, _overall(precision, recall), strict=True)),
        per_class={names[id]: _mean(precision[:, :, index, 0, -1]) for index, id in enumerate(params.catIds)},
    )


def _overall(precision: np.ndarray, recall: np.ndarray) -> list[float | None]:
    """The values of OVERALL; thresholds 0 and 5 are IoU 0.50 and 0.75."""
    return [
        *(_mean(precision[at, :, :, 0, -1]) for at in (slice(None), 0, 5)),
        *(_mean(precision[:, :, :, area, -1]) for area in (1, 2, 3)),
        *(_mean(recall[:, :, 0, limit]) for limit in (0, 1, 2)),
        *(_mean(recall[:, :, area, -1]) for area in (1, 2, 3)),
    ]


def _mean(values: np.ndarray) -> float | None:
    """Mean over the entries that exist (COCO marks the others with -1); None when none does."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _nothing(truth: dict[str, Any]) -> COCO:
    return COCO({"images": truth["images"], "categories": truth["categories"], "annotations": []}, True)


def _quiet(*_: object) -> None:
    pass
