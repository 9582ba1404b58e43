"""Is one arm ahead of another? Scores with intervals, and differences that are called clear only where they are.

Two things make a score move by chance: which scans are in the test set, and the seed of the fine-tuning. The first is
measured by a bootstrap: the scans of each split are drawn anew with replacement, the same draws for every arm and
seed, so that differences are paired, and each split on its own. The second is measured over the seeds. The interval
(95 %) of a mean over S seeds adds both half-widths in quadrature: on each side that of the percentile bootstrap of
the seed-averaged number, and t(0.975, S - 1) s / sqrt(S) with s the standard deviation over the seeds (for a
difference: of the differences of equal seeds). With one seed the interval knows nothing of the other seeds.
Simulated arms of equal quality with one seed were called different in 6 to 9 % of the trials instead of 5 (40 to 400
scans), and in under 3 % with several seeds, whose spread the bootstrap partly holds already.

The bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from segloc_eval.numbers.matches import matches
from segloc_eval.numbers.sampling import DRAWS, Numbers, SampledUnit, sample_matches
from segloc_eval.numbers.semantic import confusions, sample_confusions

FEWEST = 6  # scans that can show anything at 95 %: five that all favour one arm do so by chance in 2 of 2^5 cases
T975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)  # Student's t for 1, 2, ... 9


class Estimate(TypedDict):
    """Mean over the seeds with its interval; `spread`: standard deviation over the seeds, None for one seed."""

    mean: float
    low: float
    high: float
    seeds: list[float]
    spread: float | None


class Difference(TypedDict):
    """Arm minus base, mean over the seeds that both have. Only a `clear` one may be called ahead or behind."""

    mean: float
    low: float
    high: float
    seeds: list[float]
    clear: bool


class ArmEstimates(TypedDict):
    """`splits`: split -> metric -> Estimate; `per_class`: split -> class -> Estimate (AP, or IoU)."""

    seeds: list[int]
    splits: dict[str, dict[str, Estimate | None]]
    per_class: dict[str, dict[str, Estimate | None]]


class ArmDifferences(TypedDict):
    """As ArmEstimates, but of an arm minus the base: split -> metric or class -> Difference."""

    splits: dict[str, dict[str, Difference | None]]
    per_class: dict[str, dict[str, Difference | None]]


class Comparison(TypedDict):
    """All as JSON holds it; None where no such ground truth exists."""

    base: str
    draws: int
    arms: dict[str, ArmEstimates]
    differences: dict[str, ArmDifferences]


def compare(
    truths: Mapping[str, dict[str, Any]],
    found: Mapping[str, Mapping[int, Mapping[str, Sequence[dict[str, Any]]]]],
    kind: Literal["bbox", "segm", "semantic"],
    base: str,
    draws: int = DRAWS,
) -> Comparison:
    """Compare arms with `base`: COCO data sets by split, and COCO results by arm, seed and split.

    kind: bbox, segm or semantic. Needs one (arm, seed) in memory at a time: `found` may read files when asked.
    """

    def unit(results: Mapping[str, Sequence[dict[str, Any]]]) -> SampledUnit:
        if kind == "semantic":
            return sample_confusions(
                {split: confusions(truth, results[split]) for split, truth in truths.items()}, draws
            )
        return sample_matches({split: matches(truth, results[split], kind) for split, truth in truths.items()}, draws)

    return combine(
        {arm: {number: unit(results) for number, results in seeds.items()} for arm, seeds in found.items()}, base
    )


def combine(units: Mapping[str, Mapping[int, SampledUnit]], base: str) -> Comparison:
    """Estimates of each arm, and its differences from `base`, from units by arm and seed.

    Units are of the same data and drawn with the same seed. An arm that has no seed in common with the base has
    estimates and no differences; a base without units leaves all differences out.
    """
    arms = {arm: seeds for arm, seeds in units.items() if seeds}
    first = next((unit for seeds in arms.values() for unit in seeds.values()), None)
    values = next((n.values for number in first.splits.values() for n in number.values()), None) if first else None
    differences = {}
    for arm, seeds in arms.items():
        common = sorted(set(seeds) & set(arms.get(base, {})))
        if arm != base and common:
            pairs = [(seeds[number], arms[base][number]) for number in common]
            differences[arm] = ArmDifferences(
                splits=_differences([(a.splits, b.splits) for a, b in pairs]),
                per_class=_differences([(a.per_class, b.per_class) for a, b in pairs]),
            )
    return Comparison(
        base=base,
        draws=0 if values is None else len(values) - 1,
        arms={
            arm: ArmEstimates(
                seeds=sorted(seeds),
                splits=_estimates([seeds[number].splits for number in sorted(seeds)]),
                per_class=_estimates([seeds[number].per_class for number in sorted(seeds)]),
            )
            for arm, seeds in arms.items()
        },
        differences=differences,
    )


def student(freedom: int) -> float:
    """The 0.975 quantile of Student's t; from 10 degrees on Abramowitz and Stegun's 26.7.5, right to 0.0002."""
    if freedom <= len(T975):
        return T975[freedom - 1]
    x = 1.959964
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
    )
    return x + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def _estimates(seeds: list[dict[str, Numbers]]) -> dict[str, dict[str, Estimate | None]]:
    return {
        split: {name: _estimate(np.stack([one[split][name].values for one in seeds])) for name in numbers}
        for split, numbers in seeds[0].items()
    }


def _differences(
    pairs: list[tuple[dict[str, Numbers], dict[str, Numbers]]],
) -> dict[str, dict[str, Difference | None]]:
    return {
        split: {
            name: _difference(
                np.stack([arm[split][name].values - base[split][name].values for arm, base in pairs]), sampled.scans
            )
            for name, sampled in numbers.items()
        }
        for split, numbers in pairs[0][0].items()
    }


def _estimate(values: NDArray[np.float64]) -> Estimate | None:
    """Of values [seed, 1 + draws]; a score, so inside 0..1."""
    centre, low, high, spread = interval(values)
    if math.isnan(centre):
        return None
    return Estimate(
        mean=centre, low=max(low, 0.0), high=min(high, 1.0), seeds=[float(v) for v in values[:, 0]], spread=spread
    )


def _difference(values: NDArray[np.float64], scans: int) -> Difference | None:
    centre, low, high, _ = interval(values)
    if math.isnan(centre):
        return None
    clear = scans >= FEWEST and (low > 0 or high < 0)
    return Difference(mean=centre, low=low, high=high, seeds=[float(v) for v in values[:, 0]], clear=clear)


def interval(values: NDArray[np.float64]) -> tuple[float, float, float, float | None]:
    """Mean over the seeds, low, high, standard deviation over the seeds, from values [seed, 1 + draws].

    Draws in which the number does not exist (a class that no drawn scan holds) are left out.
    """
    averaged = values.mean(0)
    centre = float(averaged[0])
    drawn = averaged[1:][~np.isnan(averaged[1:])]
    low, high = np.percentile(drawn, (2.5, 97.5)) if len(drawn) else (centre, centre)
    seeds = len(values)
    spread = float(values[:, 0].std(ddof=1)) if seeds > 1 else None
    half = 0.0 if spread is None else student(seeds - 1) * spread / math.sqrt(seeds)
    below, above = math.hypot(max(centre - low, 0.0), half), math.hypot(max(high - centre, 0.0), half)
    return centre, centre - below, centre + above, spread
