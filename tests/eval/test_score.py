"""Scores equal pycocotools'; the ground truth as predictions is perfect."""

import contextlib
import copy
import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segloc_eval.score import OVERALL, Kind, score

SIDE = 200


def rle(box: list[float]) -> dict[str, Any]:
    """An elliptic mask in `box`, as compressed RLE with text counts."""
    x, y, w, h = box
    row, column = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = ((column - x - w / 2) / (w / 2)) ** 2 + ((row - y - h / 2) / (h / 2)) ** 2 <= 1
    encoded = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": [SIDE, SIDE], "counts": encoded["counts"].decode()}


def world(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Random truth (crowds, an empty class and image) and detections (ties, duplicates, over 100 in an image)."""
    rng = np.random.default_rng(seed)
    images = [{"id": 7 * i, "width": SIDE, "height": SIDE, "file_name": f"{i}.png"} for i in range(6)]
    categories = [{"id": 3 * c + 1, "name": f"class {c}"} for c in range(4)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images[:5]:
        for _ in range(rng.integers(0, 7)):
            w, h = rng.integers(6, 160, 2)
            box = [float(v) for v in (rng.integers(0, SIDE - w), rng.integers(0, SIDE - h), w, h)]
            mask = rle(box)
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": image["id"], "bbox": box},
                    **{"category_id": int(rng.integers(0, 3)) * 3 + 1, "segmentation": mask},
                    **{"iscrowd": int(rng.random() < 0.2), "area": float(coco_mask.area(mask))},
                }
            )
    for source in rng.choice(len(annotations), 25 if annotations else 0):
        truth = annotations[source]
        box = [float(max(v, 1)) for v in np.array(truth["bbox"]) + rng.normal(0, 6, 4).round()]
        other = int(rng.integers(0, 4)) * 3 + 1 if rng.random() < 0.3 else truth["category_id"]
        results.append(detection(truth["image_id"], other, box, round(float(rng.random()), 1)))
    if rng.random() < 0.5:  # more than COCO's limit of 100 in one image
        for _ in range(130):
            box = [float(v) for v in rng.integers(1, 90, 4)]
            results.append(detection(images[0]["id"], 1, box, round(float(rng.random()), 2)))
    return {"images": images, "categories": categories, "annotations": annotations}, results


def detection(image: int, category: int, box: list[float], confidence: float) -> dict[str, Any]:
    return {
        **{"image_id": image, "category_id": category, "bbox": box},
        **{"segmentation": rle(box), "score": confidence},
    }


def by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> tuple[list[float], list[float]]:
    """Its twelve numbers and its AP per class, -1 for "none"."""
    found = [{k: v for k, v in r.items() if kind == "segm" or k != "segmentation"} for r in results]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = copy.deepcopy(truth)
        reference.createIndex()
        if kind == "segm":
            found = [{k: v for k, v in r.items() if k != "bbox"} for r in found]
        evaluation = COCOeval(reference, reference.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    classes = [precision[:, :, c] for c in range(precision.shape[2])]
    return list(evaluation.stats), [float(p[p > -1].mean()) if (p > -1).any() else -1 for p in classes]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_equals_pycocotools(kind: Kind, seed: int) -> None:
    truth, results = world(seed)
    if not truth["annotations"] or not results:
        return
    before = copy.deepcopy((truth, results))
    ours = score(truth, results, kind)
    assert (truth, results) == before
    overall, per_class = by_pycocotools(truth, results, kind)
    for name, expected in zip(OVERALL, overall, strict=True):
        value = ours["overall"][name]
        assert math.isclose(-1 if value is None else value, expected, abs_tol=1e-9), name
    for value, expected in zip(ours["per_class"].values(), per_class, strict=True):
        assert math.isclose(-1 if value is None else value, expected, abs_tol=1e-9)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_nothing_found_is_zero_and_no_truth_is_none(kind: Kind) -> None:
    truth, results = world(1)
    assert score(truth, [], kind)["overall"]["AP"] == 0.0
    assert score(truth, [], kind)["per_class"]["class 3"] is None
    assert score({**truth, "annotations": []}, results, kind)["overall"]["AP"] is None
