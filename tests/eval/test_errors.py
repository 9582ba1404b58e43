"""The error analysis against a plain loop over detections, and on cases that one can do by hand."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from tests.eval.test_score import world

from segloc_eval.numbers.errors import clutter, diagnose, wilson
from segloc_eval.numbers.matches import Kind, read_detections, read_objects
from segloc_eval.numbers.score import score
from segloc_eval.numbers.tide import ERRORS

Box = list[float]
GUN: Box = [10.0, 10.0, 40.0, 40.0]
FAR: Box = [150.0, 150.0, 20.0, 20.0]


def plain(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> tuple[dict[str, int], np.ndarray]:
    """Counts and confusion matrix by loops over dicts, one detection after the other, best first."""
    objects, shown = read_objects(truth, kind), read_detections(truth, results, kind)
    count = int((~objects.crowd).sum())
    classes = len(truth["categories"])
    # The order of scores over all scans: by class, then image, then place where they are equal.
    order = sorted(range(len(shown.score)), key=lambda d: (-shown.score[d], shown.label[d], shown.image[d]))
    iou = {}
    for d in order:
        for o in range(len(objects.label)):
            if shown.image[d] == objects.image[o]:
                pair = [shown.shape[d]], [objects.shape[o]]
                pair = tuple(map(np.array, pair)) if kind == "bbox" else pair  # type: ignore[assignment]
                iou[d, o] = float(coco_mask.iou(*pair, [int(objects.crowd[o])])[0, 0])
    finder: dict[int, int] = {}
    verdict: dict[int, Any] = {}
    for d in order:
        same = [o for o in range(len(objects.label)) if (d, o) in iou and objects.label[o] == shown.label[d]]
        free = [o for o in same if o not in finder and not objects.crowd[o] and iou[d, o] >= 0.5]
        if free:
            best = max(free, key=lambda o: (iou[d, o], o))
            finder[best] = d
            verdict[d] = ("true", best)
        elif any(objects.crowd[o] and iou[d, o] >= 0.5 for o in same):
            verdict[d] = ("ignored", None)
    best_ones = [d for d in order if verdict.get(d, ("", 0))[0] != "ignored"][:count]
    counts = dict.fromkeys(ERRORS, 0)
    found = {verdict[d][1] for d in best_ones if d in verdict}
    mendable = set()
    for d in best_ones:
        if d in verdict:
            continue
        near = {o: v for (other, o), v in iou.items() if other == d and not objects.crowd[o]}
        same = {o: v for o, v in near.items() if objects.label[o] == shown.label[d]}  # type: ignore[assignment]
        other = {o: v for o, v in near.items() if objects.label[o] != shown.label[d]}
        if same and 0.1 <= max(same.values()) < 0.5:  # type: ignore[attr-defined]
            name = "localisation"
            mendable.add(max(same, key=lambda o: (same[o], -o)))
        elif other and max(other.values()) >= 0.5:
            name = "classification"
            mendable.add(max(other, key=lambda o: (other[o], -o)))
        elif same and max(same.values()) >= 0.5:  # type: ignore[attr-defined]
            name = "duplicate"
        elif not near or max(near.values()) < 0.1:
            name = "background"
        else:
            name = "both"
        counts[name] += 1
    every = {o for o in range(len(objects.label)) if not objects.crowd[o]}
    counts["missed"] = len(every - found - mendable)
    confusion = np.zeros((classes + 1, classes + 1))
    taken = set(found)
    for d in best_ones:
        if d in verdict:
            confusion[shown.label[d], shown.label[d]] += 1
            continue
        options = [o for o in every - taken if iou.get((d, o), 0) >= 0.5 and objects.label[o] != shown.label[d]]
        if options:
            chosen = max(options, key=lambda o: (iou[d, o], -o))
            taken.add(chosen)
            confusion[objects.label[chosen], shown.label[d]] += 1
        else:
            confusion[classes, shown.label[d]] += 1
    for o in every - taken:
        confusion[objects.label[o], classes] += 1
    return counts, confusion


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_counts_and_confusions_equal_a_plain_loop(kind: Kind, seed: int) -> None:
    truth, results = world(seed)
    for number, result in enumerate(results):
        result["score"] += number / 2**20  # no ties
    diagnosis = diagnose({"test": truth}, {0: {"test": results}}, kind)
    counts, confusion = plain(truth, results, kind)
    assert diagnosis["counts"] == counts
    assert np.array(diagnosis["confusion"]["counts"]).tolist() == confusion.tolist()
    curves = diagnosis["curves"]
    expected = score(truth, results, kind)["overall"]["AP50"]
    if expected is None:
        assert curves == {}
    else:
        assert np.mean(curves["all"]["precision"]) == pytest.approx(expected, abs=1e-5)
    json.dumps(diagnosis, allow_nan=False)


def case(objects: list[tuple[int, Box]], found: list[tuple[int, Box, float]]) -> tuple[dict[str, Any], Any]:
    """One image; classes 1 and 2; objects (class, box), detections (class, box, score)."""
    truth = {
        "images": [{"id": 1, "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "gun"}, {"id": 2, "name": "knife"}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for n, (c, b) in enumerate(objects, 1)
        ],
    }
    return truth, [{"image_id": 1, "category_id": c, "bbox": b, "score": s} for c, b, s in found]


def shifted(share: float) -> Box:
    return [10.0 + 40 * share, 10.0, 40.0, 40.0]


SECOND: Box = [100.0, 10.0, 40.0, 40.0]
KNIFE = (2, FAR)
RIGHT = (2, FAR, 0.1)
CASES = {  # kind -> objects, detections; AP50 of the gun and the knife before, and after mending that kind
    "classification": ([(1, GUN), KNIFE], [(2, GUN, 0.9), RIGHT], (0, 0.5), (1, 1)),
    "localisation": ([(1, GUN), KNIFE], [(1, shifted(0.5), 0.9), RIGHT], (0, 1), (1, 1)),
    "both": ([(1, GUN), KNIFE], [(2, shifted(0.5), 0.9), RIGHT], (0, 0.5), (0, 1)),
    "background": ([(1, GUN), KNIFE], [(1, GUN, 0.5), (2, [90.0, 90.0, 9.0, 9.0], 0.9), RIGHT], (1, 0.5), (1, 1)),
    "missed": ([(1, GUN), (1, SECOND)], [(1, GUN, 0.9)], (51 / 101,), (1,)),
    "duplicate": (
        [(1, GUN), (1, SECOND)],
        [(1, GUN, 0.9), (1, shifted(0.1), 0.8), (1, SECOND, 0.7)],
        ((51 + 50 * 2 / 3) / 101,),
        (1,),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mending_gains_what_it_should(name: str) -> None:
    objects, found, before, after = CASES[name]
    truth, results = case(objects, found)
    assert score(truth, results, "bbox")["overall"]["AP50"] == pytest.approx(np.mean(before))
    gain = diagnose({"test": truth}, {0: {"test": results}}, "bbox")["gain"]
    assert gain[name] == pytest.approx(np.mean(after) - np.mean(before))
    if name in ("localisation", "duplicate"):
        assert sum(gain.values()) == pytest.approx(gain[name])


@pytest.mark.parametrize(
    ("found", "gained"), [([], 1.0), ([(1, GUN, 0.9)], 0.5), ([(1, GUN, 0.9), (2, SECOND, 0.1)], 0)]
)
def test_a_class_that_nothing_finds_is_missed(found: list[tuple[int, Box, float]], gained: float) -> None:
    """As TIDE has it: without its objects it counts no more, unless it has detections."""
    truth, results = case([(1, GUN), KNIFE], found)
    assert diagnose({"test": truth}, {0: {"test": results}}, "bbox")["gain"]["missed"] == pytest.approx(gained)


def test_only_the_best_of_several_errors_mends_an_object() -> None:
    truth, results = case([(1, GUN)], [(1, shifted(0.5), 0.8), (1, shifted(0.6), 0.9), (1, FAR, 0.85)])
    gain = diagnose({"test": truth}, {0: {"test": results}}, "bbox")["gain"]
    assert gain["localisation"] == pytest.approx(1.0) and gain["background"] == gain["missed"] == 0


def test_an_error_at_a_found_object_mends_no_other() -> None:
    truth, results = case([(1, GUN), (1, SECOND)], [(1, GUN, 0.5), (1, shifted(0.5), 0.9)])
    gain = diagnose({"test": truth}, {0: {"test": results}}, "bbox")["gain"]
    assert gain["localisation"] == pytest.approx(51 / 101 / 2)  # it goes: precision 1 instead of 1/2, recall still 1/2


def test_splits_and_seeds_are_taken_together() -> None:
    truth, right = case([(1, GUN)], [(1, GUN, 0.9)])
    _, wrong = case([], [(2, GUN, 0.9)])
    found = {0: {"a": right, "b": right}, 1: {"a": right, "b": wrong}}
    diagnosis = diagnose({"a": truth, "b": truth}, found, "bbox", {"a": {1: 0.25}})
    assert diagnosis["counts"] == {**dict.fromkeys(ERRORS, 0), "classification": 0.5}
    assert diagnosis["confusion"] == {
        **{"classes": ["gun", "knife", "background"], "counts": [[1.5, 0.5, 0], [0, 0, 0], [0, 0, 0]]}
    }
    (size,) = diagnosis["size"]
    assert (size["low"], size["high"], size["objects"], size["recall"]) == (40.0, 40.0, 2, 0.75)
    assert diagnosis["clutter"] == [
        {"low": 0.25, "high": 0.25, "objects": 1, "recall": 1.0, "interval": wilson(1.0, 1)}
    ]
    assert set(diagnosis["curves"]) == {"gun", "all"}
    truth["categories"][0]["name"] = "all"
    assert set(diagnose({"a": truth}, {0: {"a": right}}, "bbox")["curves"]) == {"all", "all*"}


def test_recall_falls_with_size_where_small_objects_are_missed() -> None:
    boxes = [[5.0, 5.0, side, side] for side in range(10, 110, 2)]
    truth = {
        "images": [{"id": n, "width": 200, "height": 200} for n in range(50)],
        "categories": [{"id": 1, "name": "gun"}],
        "annotations": [
            {"id": n + 1, "image_id": n, "category_id": 1, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
            for n, b in enumerate(boxes)
        ],
    }
    results = [{"image_id": n, "category_id": 1, "bbox": b, "score": 0.5} for n, b in enumerate(boxes) if n >= 20]
    bins = diagnose({"test": truth}, {0: {"test": results}}, "bbox")["size"]
    assert [one["objects"] for one in bins] == [10] * 5
    assert [one["recall"] for one in bins] == [0, 0, 1, 1, 1]
    assert all(one["interval"][0] <= one["recall"] <= one["interval"][1] for one in bins)
    assert bins[0]["low"] == 10 and bins[-1]["high"] == 108


def test_nothing_at_all() -> None:
    truth, _ = case([], [])
    diagnosis = diagnose({"test": truth}, {0: {"test": []}}, "bbox")
    assert diagnosis["counts"] == dict.fromkeys(ERRORS, 0) == diagnosis["gain"]
    assert diagnosis["size"] == [] and diagnosis["curves"] == {} and diagnosis["clutter"] is None
    truth, results = case([(1, GUN)], [])
    assert diagnose({"test": truth}, {0: {"test": results}}, "bbox")["counts"]["missed"] == 1
    with pytest.raises(ValueError, match="no results"):
        diagnose({"test": truth}, {}, "bbox")


def test_clutter_is_the_darkness_of_the_ring() -> None:
    pixels = np.full((100, 100), 255, np.uint8)
    pixels[30:70, 30:70] = 0  # the object itself does not count
    assert clutter(pixels, [30, 30, 40, 40]) == 0.0
    pixels[:, :30] = 102
    assert clutter(pixels, [30, 30, 40, 40]) == pytest.approx(0.6 * 10 * 60 / (60 * 60 - 40 * 40))
    assert clutter(np.repeat(pixels[..., None], 3, 2), [30, 30, 40, 40]) == clutter(pixels, [30, 30, 40, 40])
    assert clutter(pixels, [0, 0, 100, 100]) is None
    assert clutter(pixels, [0, 0, 20, 20]) == pytest.approx(0.6)


def test_wilson() -> None:
    assert wilson(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson(0.0, 10)[0] == 0.0 and wilson(1.0, 10)[1] == 1.0
