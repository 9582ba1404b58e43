"""Scores equal pycocotools'; the ground truth as predictions is perfect."""

import contextlib
import copy
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segloc_eval.numbers.score import OVERALL, Kind, score

SIDE = 200


def rle(box: list[float]) -> dict[str, Any]:
    """An elliptic mask in `box`, as compressed RLE with text counts."""
    x, y, w, h = box
    row, column = np.mgrid[:SIDE, :SIDE] + 0.5
    inside = ((column - x - w / 2) / (w / 2)) ** 2 + ((row - y - h / 2) / (h / 2)) ** 2 <= 1
    encoded = coco_mask.encode(np.asfortranarray(inside.astype(np.uint8)))
    return {"size": [SIDE, SIDE], "counts": encoded["counts"].decode()}


def polygon(box: list[float]) -> list[list[float]]:
    """Two triangles in `box`."""
    x, y, w, h = box
    return [[x, y, x + w, y, x, y + h], [x + w, y + h, x + w, y + h / 2, x + w / 2, y + h]]


def runs(box: list[float]) -> dict[str, Any]:
    """The uncompressed RLE of a box of whole numbers."""
    x, y, w, h = map(int, box)
    counts = [x * SIDE + y, *[h, SIDE - h] * (w - 1), h, (SIDE - x - w) * SIDE + SIDE - y - h]
    return {"size": [SIDE, SIDE], "counts": counts}


def world(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Random truth (crowds, an empty class, empty images, all sizes) and detections (ties, over 100 in an image)."""
    rng = np.random.default_rng(seed)
    images = [{"id": 7 * i, "width": SIDE, "height": SIDE, "file_name": f"{i}.png"} for i in range(6)]
    rng.shuffle(images)  # type: ignore[arg-type]
    categories = [{"id": 3 * c + 1, "name": f"class {c}"} for c in range(4)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images[:5]:
        for _ in range(rng.integers(0, 7)):
            w, h = rng.integers(6, 60 if rng.random() < 0.5 else 160, 2)
            box = [float(v) for v in (rng.integers(0, SIDE - w), rng.integers(0, SIDE - h), w, h)]
            area = float(rng.choice([w * h, coco_mask.area(rle(box)), 32**2, 96**2], p=[0.4, 0.4, 0.1, 0.1]))
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "image_id": image["id"], "bbox": box},
                    **{"category_id": int(rng.integers(0, 3)) * 3 + 1, "iscrowd": int(rng.random() < 0.2)},
                    **{"segmentation": (rle, polygon, runs)[rng.integers(0, 3)](box), "area": area},
                }
            )
            if rng.random() < 0.2:  # another at the very same place
                annotations.append({**copy.deepcopy(annotations[-1]), "id": len(annotations) + 1})
    for source in rng.choice(len(annotations), 25 if annotations else 0):
        truth = annotations[source]
        box = [float(max(v, 1)) for v in np.array(truth["bbox"]) + rng.normal(0, rng.choice([0, 6]), 4).round()]
        other = int(rng.integers(0, 4)) * 3 + 1 if rng.random() < 0.3 else truth["category_id"]
        results.append(detection(truth["image_id"], other, box, round(float(rng.random()), 1)))
    if rng.random() < 0.3:  # more than COCO's limit of 100 in one image
        for _ in range(130):
            box = [float(v) for v in rng.integers(1, 90, 4)]
            results.append(detection(images[0]["id"], 1, box, round(float(rng.random()), 2)))
    return {"images": images, "categories": categories, "annotations": annotations}, results


def detection(image: int, category: int, box: list[float], confidence: float) -> dict[str, Any]:
    return {
        **{"image_id": image, "category_id": category, "bbox": box},
        **{"segmentation": rle(box), "score": confidence},
    }


def by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> dict[str, float]:
    """Its twelve numbers and its AP per class; those that are -1, for "none", left out."""
    unwanted = "bbox" if kind == "segm" else "segmentation"
    found = [{k: v for k, v in result.items() if k != unwanted} for result in results]
    reference, other = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        reference.dataset = copy.deepcopy(truth)
        reference.createIndex()
        other.dataset = {**copy.deepcopy(truth), "annotations": []}
        other.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found) if found else other, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    classes = [precision[:, :, c] for c in range(precision.shape[2])]
    values = [*evaluation.stats, *(float(p.mean()) for p in classes)]
    names = [*OVERALL, *(category["name"] for category in truth["categories"])]
    return {name: value for name, value in zip(names, values, strict=True) if value > -1}


def ours(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> dict[str, float]:
    scores = score(truth, results, kind)
    both = {**scores["overall"], **scores["per_class"]}
    return {name: value for name, value in both.items() if value is not None}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_equals_pycocotools(kind: Kind, seed: int) -> None:
    truth, results = world(seed)
    before = copy.deepcopy((truth, results))
    assert ours(truth, results, kind) == pytest.approx(by_pycocotools(truth, results, kind), abs=1e-9)
    assert (truth, results) == before


boxes = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 12)] * 2).map(lambda box: [8.0 * v for v in box])
objects = st.tuples(st.integers(0, 2), st.integers(0, 2), boxes, st.booleans() | st.just(False))
found = st.tuples(st.integers(0, 2), st.integers(0, 2), boxes, st.integers(0, 3))


@settings(max_examples=60)
@given(objects=st.lists(objects, max_size=12), found=st.lists(found, max_size=25))
def test_coarse_boxes_that_tie_in_overlap_and_score_equal_pycocotools(objects: list[Any], found: list[Any]) -> None:
    truth = {
        "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(3)],
        "categories": [{"id": c, "name": f"class {c}"} for c in range(3)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": int(crowd)}
            for n, (i, c, b, crowd) in enumerate(objects, 1)
        ],
    }
    results = [{"image_id": i, "category_id": c, "bbox": b, "score": s / 4} for i, c, b, s in found]
    assert ours(truth, results, "bbox") == pytest.approx(by_pycocotools(truth, results, "bbox"), abs=1e-9)


def test_the_best_hundred_of_each_class_and_image_count() -> None:
    box = [10.0, 10.0, 40.0, 40.0]
    truth = {
        "images": [{"id": 0, "width": SIDE, "height": SIDE}],
        "categories": [{"id": c, "name": str(c)} for c in (1, 2)],
        "annotations": [
            {"id": c, "image_id": 0, "category_id": c, "bbox": box, "area": 1600.0, "iscrowd": 0} for c in (1, 2)
        ],
    }
    wrong = [{"image_id": 0, "category_id": 1, "bbox": [150.0, 150.0, 9.0, 9.0], "score": 0.9}] * 100
    right = [{"image_id": 0, "category_id": c, "bbox": box, "score": 0.5} for c in (1, 2)]
    scores = score(truth, [*right, *wrong], "bbox")
    assert scores["per_class"] == {"1": 0.0, "2": pytest.approx(1.0)}
    assert score(truth, [*right, *wrong[:99]], "bbox")["per_class"] == {"1": pytest.approx(0.01), "2": pytest.approx(1)}


def test_recall_points_that_floats_miss_are_missed_alike() -> None:
    """7 of 20 objects found is recall 0.35, and pycocotools' 36th point is 0.35000000000000003."""
    images = [{"id": i, "width": SIDE, "height": SIDE} for i in range(20)]
    box = [10.0, 10.0, 40.0, 40.0]
    truth = {
        **{"images": images, "categories": [{"id": 1, "name": "a"}]},
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1, "bbox": box, "area": 1600.0, "iscrowd": 0} for i in range(20)
        ],
    }
    for count in range(1, 21):
        results = [{"image_id": i, "category_id": 1, "bbox": box, "score": 0.9} for i in range(count)]
        assert ours(truth, results, "bbox") == pytest.approx(by_pycocotools(truth, results, "bbox"), abs=1e-9)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_nothing_found_is_zero_and_no_truth_is_none(kind: Kind) -> None:
    truth, results = world(1)
    assert score(truth, [], kind)["overall"]["AP"] == 0.0
    assert score(truth, [], kind)["per_class"]["class 3"] is None
    assert score({**truth, "annotations": []}, results, kind)["overall"]["AP"] is None


def test_results_on_an_unknown_image_are_refused() -> None:
    truth, results = world(1)
    with pytest.raises(ValueError, match="image 99"):
        score(truth, [{**results[0], "image_id": 99}], "bbox")
