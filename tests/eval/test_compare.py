"""Intervals cover the truth; chance is rarely called a difference, a real one is."""

import json
from typing import Any

import numpy as np
import pytest
from tests.eval.test_score import world

from segloc_eval.numbers.compare import Comparison, combine, compare, student
from segloc_eval.numbers.matches import matches
from segloc_eval.numbers.sampling import DRAWS, Sampled, SampledUnit, resample, sample_matches
from segloc_eval.numbers.score import score, score_splits

Results = list[dict[str, Any]]


def scene(rng: np.random.Generator, images: int) -> dict[str, Any]:
    """Images with one or two objects of two classes."""
    where = np.repeat(np.arange(images), rng.integers(1, 3, images))
    boxes = np.concatenate([rng.integers(0, 100, (len(where), 2)), rng.integers(20, 60, (len(where), 2))], 1)
    return {
        "images": [{"id": i, "width": 200, "height": 200} for i in range(images)],
        "categories": [{"id": 1, "name": "gun"}, {"id": 2, "name": "knife"}],
        "annotations": [
            {
                **{"id": n + 1, "image_id": int(i), "category_id": int(rng.integers(1, 3)), "bbox": box.tolist()},
                **{"area": float(box[2] * box[3]), "iscrowd": 0},
            }
            for n, (i, box) in enumerate(zip(where, boxes, strict=True))
        ],
    }


def detect(rng: np.random.Generator, truth: dict[str, Any], chance: float) -> Results:
    """A detector that finds each object with a chance, shifted a little, and makes as many false alarms."""
    results = []
    for annotation in truth["annotations"]:
        x, y, w, h = annotation["bbox"]
        if rng.random() < chance:
            dx, dy = rng.normal(0, 0.07, 2)
            box = [x + dx * w, y + dy * h, float(w), float(h)]
            results.append({**annotation, "bbox": box, "score": float(rng.beta(3, 2))})
        results.append({**annotation, "bbox": [150.0, 150.0, 30.0, 30.0], "score": float(rng.beta(2, 3))})
    return results


def once(rng: np.random.Generator, chances: tuple[float, float], seeds: int, images: int = 40) -> Comparison:
    truth, draws = scene(rng, images), int(rng.integers(2**31))
    units = {
        arm: {
            seed: sample_matches({"test": matches(truth, detect(rng, truth, chance), "bbox")}, 150, draws)
            for seed in range(seeds)
        }
        for arm, chance in zip(("random", "ours"), chances, strict=True)
    }
    return combine(units, "random")


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_equal_arms_are_rarely_called_different(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    found = [once(rng, (0.6, 0.6), seeds)["differences"]["ours"]["splits"]["test"] for _ in range(80)]
    for metric in ("AP", "AP50"):
        clear = [difference["clear"] for one in found if (difference := one[metric])]
        assert len(clear) == 80
        assert sum(clear) <= 10  # 4 expected at 5 %


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    found = [once(rng, (0.45, 0.85), 3)["differences"]["ours"]["splits"]["test"]["AP50"] for _ in range(10)]
    assert sum(one["clear"] and one["low"] > 0 for one in found if one) >= 9


def test_intervals_cover_what_many_scans_say() -> None:
    rng = np.random.default_rng(5)
    truth = scene(rng, 1500)
    expected = score(truth, detect(rng, truth, 0.6), "bbox")["overall"]["AP50"]
    assert expected is not None
    covered = 0
    for _ in range(60):
        one = once(rng, (0.6, 0.6), 1, images=60)["arms"]["ours"]["splits"]["test"]["AP50"]
        assert one is not None and one["low"] <= one["mean"] <= one["high"]
        covered += one["low"] <= expected <= one["high"]
    assert covered >= 51  # 57 expected


def test_identical_results_differ_nowhere() -> None:
    truths = {"easy": world(1)[0], "hard": world(2)[0]}
    results = {0: {"easy": world(1)[1], "hard": world(2)[1]}, 1: {"easy": world(1)[1][:9], "hard": world(2)[1]}}
    comparison = compare(truths, {"random": results, "ours": results}, "bbox", "random", draws=40)
    assert set(comparison["arms"]["ours"]["splits"]) == {"easy", "hard", "mean", "pooled"}
    for group in comparison["differences"]["ours"].values():
        for numbers in group.values():  # type: ignore[attr-defined]
            for one in numbers.values():
                assert one is None or (one["mean"], one["low"], one["high"], one["clear"]) == (0, 0, 0, False)
    json.dumps(comparison, allow_nan=False)


def test_estimates_are_the_scores_and_overalls_are_both() -> None:
    parts = {"easy": world(4), "hard": world(5)}
    truths = {split: part[0] for split, part in parts.items()}
    comparison = compare(truths, {"ours": {7: {s: part[1] for s, part in parts.items()}}}, "bbox", "random", draws=10)
    own = comparison["arms"]["ours"]
    assert own["seeds"] == [7] and comparison["differences"] == {} and comparison["draws"] == 10
    for split, part in parts.items():
        scores = score(*part, "bbox")
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
            estimate, value = own["splits"][split][name], scores["overall"][name]
            assert (None if estimate is None else estimate["mean"]) == (None if value is None else pytest.approx(value))
        assert own["per_class"][split]["class 3"] is None
    overalls = score_splits({split: matches(*part, "bbox") for split, part in parts.items()})
    assert set(overalls) == {*parts, "mean", "pooled"}
    for split in ("mean", "pooled"):
        for group, numbers in (("overall", own["splits"][split]), ("per_class", own["per_class"][split])):
            for name, estimate in numbers.items():
                value = overalls[split][group][name]  # type: ignore[literal-required]
                assert (estimate and estimate["mean"]) == (None if value is None else pytest.approx(value)), name
    easy, hard, both = (own["splits"][split]["AP"] for split in ("easy", "hard", "mean"))
    assert easy and hard and both and both["mean"] == pytest.approx((easy["mean"] + hard["mean"]) / 2)


def test_splits_are_drawn_each_on_its_own_and_arms_alike() -> None:
    table = matches(*world(5), "bbox")
    one, other = (sample_matches({"easy": table, "hard": table}, 20, 3).splits for _ in range(2))
    easy, hard = (one[split]["AP"].values for split in ("easy", "hard"))
    assert easy[0] == hard[0] and (easy[1:] != hard[1:]).any()
    np.testing.assert_array_equal(easy, other["easy"]["AP"].values)


def unit(values: list[float], scans: int = 10) -> SampledUnit:
    return SampledUnit({"test": {"AP": Sampled(np.array(values), scans)}}, {"test": {}})


def test_both_half_widths_are_added_in_quadrature() -> None:
    """Draws spread by 0.1 to either side; seeds 0.4, 0.5, 0.6 have t s / sqrt 3 = 4.3027 * 0.1 / 1.7321."""
    units = {
        seed: unit([value, *np.linspace(value - 0.1, value + 0.1, 4001)]) for seed, value in enumerate((0.4, 0.5, 0.6))
    }
    one = combine({"ours": units}, "random")["arms"]["ours"]["splits"]["test"]["AP"]
    assert one is not None
    half = np.hypot(0.095, 4.3027 * 0.1 / np.sqrt(3))
    assert one == {
        **{"mean": pytest.approx(0.5), "low": pytest.approx(0.5 - half), "high": pytest.approx(0.5 + half)},
        **{"seeds": [0.4, 0.5, 0.6], "spread": pytest.approx(0.1)},
    }


def test_differences_pair_the_seeds_that_both_have() -> None:
    arms = {"random": {1: unit([0.1] * 9), 2: unit([0.2] * 9)}, "ours": {2: unit([0.5] * 9), 3: unit([0.9] * 9)}}
    one = combine(arms, "random")["differences"]["ours"]["splits"]["test"]["AP"]
    assert one == {
        **dict.fromkeys(("mean", "low", "high"), pytest.approx(0.3)),
        "seeds": [pytest.approx(0.3)],
        "clear": True,
    }
    assert combine({**arms, "random": {}}, "random")["differences"] == {}


def test_five_scans_show_nothing() -> None:
    for scans, clear in ((5, False), (6, True)):
        arms = {"random": {0: unit([0.1] * 9, scans)}, "ours": {0: unit([0.5] * 9, scans)}}
        one = combine(arms, "random")["differences"]["ours"]["splits"]["test"]["AP"]
        assert one is not None and one["clear"] is clear


def test_draws_have_as_many_images_and_are_reproducible() -> None:
    draws = resample(30, DRAWS, [3, 1])
    assert draws.shape == (DRAWS, 30) and (draws.sum(1) == 30).all()
    assert abs(float((draws == 0).mean()) - (1 - 1 / 30) ** 30) < 0.01
    np.testing.assert_array_equal(draws, resample(30, DRAWS, [3, 1]))
    assert (resample(30, 5, [3, 0]) != draws[:5]).any()


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.706), (2, 4.303), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)]
)
def test_student(freedom: int, value: float) -> None:
    assert student(freedom) == pytest.approx(value, abs=0.0006)
