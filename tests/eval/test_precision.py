"""AP under whole weights per image equals the score of the data set with each image there that often."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.eval.test_score import world

from segloc_eval.numbers.matches import Kind, concatenate, matches
from segloc_eval.numbers.precision import average_precision, summary
from segloc_eval.numbers.score import score


def repeated(
    truth: dict[str, Any], results: list[dict[str, Any]], times: dict[int, int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Image id -> as many copies, side by side in the order of ids."""
    most = max(times.values(), default=0) + 1
    copies = {id: [id * most + copy for copy in range(count)] for id, count in times.items()}
    annotations = [{**a, "image_id": id} for a in truth["annotations"] for id in copies[a["image_id"]]]
    return {
        **truth,
        "images": [{**image, "id": id} for image in truth["images"] for id in copies[image["id"]]],
        "annotations": [{**a, "id": number} for number, a in enumerate(annotations, 1)],
    }, [{**result, "image_id": id} for result in results for id in copies[result["image_id"]]]


def without_ties_inside(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores that tie between images only."""
    seen: dict[tuple[int, int], int] = {}
    for result in results:
        key = (result["image_id"], result["category_id"])
        seen[key] = seen.get(key, 0) + 1
        result["score"] += seen[key] / 1024
    return results


def as_dict(table: Any, weights: list[int]) -> dict[str, float]:
    precision = average_precision(table, np.array([weights, [1] * len(weights)]))
    numbers = {**summary(precision), **dict(zip(table.classes, summary_by_class(precision), strict=True))}
    return {name: value[0] for name, value in numbers.items() if not np.isnan(value[0])}


def summary_by_class(precision: np.ndarray) -> np.ndarray:
    return precision[:, :, 0].mean(-1).T


def expected(truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind) -> dict[str, float]:
    scores = score(truth, results, kind)
    both = {**scores["overall"], **scores["per_class"]}
    return {name: value for name, value in both.items() if value is not None and not name.startswith("AR")}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), weights=st.lists(st.integers(0, 4), min_size=6, max_size=6))
def test_weights_repeat_images(kind: Kind, seed: int, weights: list[int]) -> None:
    truth, results = world(seed)
    results = without_ties_inside(results)
    table = matches(truth, results, kind)
    assert as_dict(table, [1] * 6) == pytest.approx(expected(truth, results, kind), abs=1e-9)
    times = dict(zip(sorted(image["id"] for image in truth["images"]), weights, strict=True))
    assert as_dict(table, weights) == pytest.approx(expected(*repeated(truth, results, times), kind), abs=1e-9)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_tables_of_two_splits_join_to_the_table_of_both(seed: int) -> None:
    parts = [world(seed), world(seed + 1)]
    joined = concatenate([matches(*part, "bbox") for part in parts])
    truth = {**parts[0][0], "images": [], "annotations": []}
    results: list[dict[str, Any]] = []
    for place, (own, found) in enumerate(parts):
        truth["images"] += [{**image, "id": image["id"] + 1000 * place} for image in own["images"]]
        truth["annotations"] += [{**a, "image_id": a["image_id"] + 1000 * place} for a in own["annotations"]]
        results += [{**result, "image_id": result["image_id"] + 1000 * place} for result in found]
    truth["annotations"] = [{**a, "id": number} for number, a in enumerate(truth["annotations"], 1)]
    assert as_dict(joined, [1] * 12) == pytest.approx(expected(truth, results, "bbox"), abs=1e-9)


def test_blocks_of_draws_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    table = matches(*world(3), "bbox")
    weights = np.random.default_rng(0).integers(0, 3, (70, 6))
    whole = average_precision(table, weights)
    monkeypatch.setattr("segloc_eval.numbers.precision._BLOCK", 7)
    monkeypatch.setattr("segloc_eval.numbers.matches._PADDED", 5)
    np.testing.assert_array_equal(average_precision(matches(*world(3), "bbox"), weights), whole)
