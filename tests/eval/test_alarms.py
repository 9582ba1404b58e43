"""False alarms: against counting by hand, and what must hold whatever a detector finds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from segloc_eval.numbers.alarms import RECALLS, Sampled, combine, sample_alarms
from segloc_eval.numbers.matches import Matches, matches

BOX = [10.0, 10.0, 20.0, 20.0]


def table(scores: list[float], objects: int) -> Matches:
    """As many scans with an object each as `objects`; the first are found, with these scores."""
    truth = {
        "images": [{"id": i} for i in range(objects)],
        "categories": [{"id": 1, "name": "Gun"}, {"id": 2, "name": "Knife"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": BOX, "area": 400, "iscrowd": 0} for i in range(objects)
        ],
    }
    results = [{"image_id": i, "category_id": 1, "bbox": BOX, "score": s} for i, s in enumerate(scores)]
    wrong = [{"image_id": 0, "category_id": 2, "bbox": BOX, "score": 0.99}]  # another class finds nothing
    return matches(truth, results + wrong, "bbox")


def at(recall: float) -> int:
    return RECALLS.index(recall)


def test_thresholds_and_alarms_as_counted_by_hand() -> None:
    tables = [table([0.9, 0.8], 2), table([0.6, 0.3], 3)]  # four of five are found
    bag, score = np.array([0, 0, 2, 3]), np.array([0.85, 0.7, 0.6, 0.2])
    found = sample_alarms(tables, bag, score, 4, draws=20)
    want = {0.2: (0.9, 0, 0), 0.4: (0.8, 1, 1), 0.5: (0.6, 3, 2), 0.6: (0.6, 3, 2), 0.75: (0.3, 3, 2), 0.8: (0.3, 3, 2)}
    for recall, (threshold, alarms, bags) in want.items():
        assert found.threshold[0, at(recall)] == threshold
        assert (found.alarms[0, at(recall)], found.bags[0, at(recall)]) == (alarms / 4, bags / 4)
    assert np.isnan(found.threshold[0, at(0.85)]) and np.isnan(found.alarms[0, at(0.85)])
    told = combine({"a": {0: found, 1: found}, "b": {0: found}}, "a", 4)
    entry = told["arms"]["a"]["alarms"][at(0.5)]
    assert entry is not None and entry["mean"] == 75.0 and entry["seeds"] == [75.0, 75.0] and entry["spread"] == 0
    assert told["arms"]["a"]["alarms"][at(0.85)] is None and told["arms"]["a"]["thresholds"][0][at(0.85)] is None
    difference = told["arms"]["b"]["differences"][at(0.5)]
    assert difference is not None and difference["mean"] == 0 and not difference["clear"]


def test_without_any_detection_nothing_is_reached_and_nothing_alarms() -> None:
    none: NDArray[np.int64] = np.zeros(0, np.int64)
    silent = sample_alarms([table([], 3)], none, none.astype(float), 5, draws=3)
    assert np.isnan(silent.threshold).all()
    quiet = sample_alarms([table([0.9, 0.8, 0.7], 3)], none, none.astype(float), 5, draws=3)
    assert not np.isnan(quiet.threshold[0]).any() and not quiet.alarms[0].any() and not quiet.bags[0].any()


@settings(max_examples=40, deadline=None)
@given(
    scores=st.lists(st.floats(0.05, 1), max_size=12),
    benign=st.lists(st.tuples(st.integers(0, 6), st.floats(0.05, 1)), max_size=20),
)
def test_more_recall_never_means_fewer_alarms(scores: list[float], benign: list[tuple[int, float]]) -> None:
    bag, score = np.array([b for b, _ in benign], np.int64), np.array([s for _, s in benign], float)
    found: Sampled = sample_alarms([table(scores, 12)], bag, score, 7, draws=8)
    for values, rising in ((found.threshold, False), (found.alarms, True), (found.bags, True)):
        for row in values:
            real = row[~np.isnan(row)]
            assert (np.diff(real) >= 0).all() if rising else (np.diff(real) <= 0).all()
            assert np.isnan(row[len(real) :]).all(), "what is not reached comes last"
    assert (np.nan_to_num(found.bags) <= np.nan_to_num(np.minimum(found.alarms, 1)) + 1e-9).all()
