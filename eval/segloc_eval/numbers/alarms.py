"""False alarms on benign bags at a given recall: what a detector costs whoever has to open them.

The threshold of a recall is the highest score at which that share of the test objects is found (IoU 0.5, right class,
all test splits pooled). Every detection of any class above it on a scan that holds nothing is a false alarm. Intervals
as in compare: test scans and benign scans are drawn anew, each draw with a threshold of its own.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from segloc_eval.numbers.compare import FEWEST, Difference, Estimate, interval
from segloc_eval.numbers.matches import TRUE, Matches, concatenate
from segloc_eval.numbers.sampling import DRAWS, resample

RECALLS = tuple(number / 20 for number in range(1, 20))
_TOGETHER = 100  # draws computed at a time


class Sampled(NamedTuple):
    """Of one (arm, seed), float64 [1 + draws, RECALLS], of the scans as they are first; nan where no score reaches it.

    threshold: score; alarms: detections a benign scan; bags: share of benign scans with any.
    """

    threshold: NDArray[np.float64]
    alarms: NDArray[np.float64]
    bags: NDArray[np.float64]


class ArmAlarms(TypedDict):
    """By recall, None where it is not reached: false alarms per 100 benign scans, share of scans with any, thresholds.

    `thresholds` hold one for each seed, `differences` are those of the alarms to the base's.
    """

    alarms: list[Estimate | None]
    bags: list[Estimate | None]
    thresholds: list[list[float | None]]
    differences: list[Difference | None]


class Alarms(TypedDict):
    """`scans`: benign scans looked at."""

    scans: int
    base: str
    recalls: list[float]
    arms: dict[str, ArmAlarms]


def sample_alarms(
    tables: Sequence[Matches],
    bag: NDArray[np.int64],
    score: NDArray[np.float64],
    bags: int,
    draws: int = DRAWS,
    seed: int = 0,
) -> Sampled:
    """From the matches of each test split, and place of the scan (0 to bags - 1) and score of each benign detection.

    The draws of test scans are those of sampling.sample.
    """
    table = concatenate(tables)
    scans = np.concatenate([_weights(part.images, draws, [seed, i]) for i, part in enumerate(tables)], axis=1)
    benign = _weights(bags, draws, [seed, len(tables)])
    found = np.flatnonzero(table.state[:, 0, 0] == TRUE)
    found = found[np.argsort(-table.score[found], kind="stable")]
    objects = table.object_image[table.counted[:, 0]]
    order = np.argsort(-score, kind="stable")
    worst = np.full(bags, -np.inf)
    np.maximum.at(worst, bag, score)
    by_worst = np.argsort(-worst, kind="stable")
    parts = []
    for first in range(0, draws + 1, _TOGETHER):
        rows = slice(first, first + _TOGETHER)
        some, drawn = scans[rows], benign[rows]
        hits, total = np.cumsum(some[:, table.image[found]], 1, np.float64), some[:, objects].sum(1, dtype=np.float64)
        threshold = np.stack([_reached(hits, recall * total, table.score[found]) for recall in RECALLS], 1)
        loud = order[score[order] >= np.nanmin(threshold, initial=np.inf)]  # the others count at no recall
        alarms = _above(drawn[:, bag[loud]], score[loud], threshold) / bags
        parts.append((threshold, alarms, _above(drawn[:, by_worst], worst[by_worst], threshold) / bags))
    return Sampled(*(np.concatenate(one) for one in zip(*parts, strict=True)))


def combine(units: Mapping[str, Mapping[int, Sampled]], base: str, scans: int) -> Alarms:
    """Over the seeds of each arm, and against the base over those that both have."""
    arms = {}
    for arm, seeds in units.items():
        common = [] if arm == base else sorted(set(seeds) & set(units.get(base, {})))
        own = [seeds[number] for number in sorted(seeds)]
        arms[arm] = ArmAlarms(
            alarms=[_estimate([100 * one.alarms[:, at] for one in own]) for at in range(len(RECALLS))],
            bags=[_estimate([one.bags[:, at] for one in own]) for at in range(len(RECALLS))],
            thresholds=[[None if np.isnan(t) else float(t) for t in one.threshold[0]] for one in own],
            differences=[
                _difference([100 * (seeds[n].alarms - units[base][n].alarms)[:, at] for n in common], scans)
                for at in range(len(RECALLS))
            ],
        )
    return Alarms(scans=scans, base=base, recalls=list(RECALLS), arms=arms)


def _weights(images: int, draws: int, seed: Sequence[int]) -> NDArray[np.uint16]:
    return np.concatenate([np.ones((1, images), np.uint16), resample(images, draws, seed)])


def _reached(
    hits: NDArray[np.float64], wanted: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """By draw, the score of the first hit at which so many are found, nan where there are never."""
    enough = hits >= np.maximum(wanted, 1)[:, None] - 1e-9
    if not enough.shape[1]:
        return np.full(len(hits), np.nan)
    return np.where(enough[:, -1], scores[enough.argmax(1)], np.nan)


def _above(
    weights: NDArray[np.uint16], scores: NDArray[np.float64], threshold: NDArray[np.float64]
) -> NDArray[np.float64]:
    """By draw and recall, the weight [draw, n] of what has at least that score, `scores` [n] falling."""
    total = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights, 1, np.float64)], 1)
    count = np.searchsorted(-scores, -threshold, side="right")
    return np.where(np.isnan(threshold), np.nan, np.take_along_axis(total, np.minimum(count, len(scores)), 1))


def _estimate(values: list[NDArray[np.float64]]) -> Estimate | None:
    centre, low, high, spread = interval(np.stack(values))
    if np.isnan(centre):
        return None
    seeds = [float(one[0]) for one in values]
    return Estimate(mean=centre, low=max(low, 0.0), high=high, seeds=seeds, spread=spread)


def _difference(values: list[NDArray[np.float64]], scans: int) -> Difference | None:
    if not values:
        return None
    centre, low, high, _ = interval(np.stack(values))
    if np.isnan(centre):
        return None
    clear = scans >= FEWEST and (low > 0 or high < 0)
    return Difference(mean=centre, low=low, high=high, seeds=[float(one[0]) for one in values], clear=clear)
