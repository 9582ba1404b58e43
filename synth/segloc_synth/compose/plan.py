"""The plan: what goes where in sample `index`, as a pure function of (config, catalogue, number of scans, index)."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segloc_synth.config import Config

TRIES = 8  # candidate positions of an object
CANDIDATES = 6  # benign scans drawn for a view: the first that can be used and shows no bag of the other view's
SHEAR = 0.12  # pose: largest shear
PERSPECTIVE = 0.08  # and largest change of scale along the object, relative to its size
DRAWS = 16 + TRIES  # random numbers of a paste, at most


@dataclass(frozen=True)
class Catalogue:
    """What there is to draw from: the prepared segments by class, and how likely each class is.

    Attributes:
        members: for each class, the places of its segments in the objects' bank.
        chances: cumulative chance of each class, ending at 1.
        class_of: for each segment, the place of its class in `members`.
        sized: for each class, the segments of it whose size relative to their bag is known (all, if none is).
        distractors: number of benign look-alikes in their own bank.
    """

    members: tuple[npt.NDArray[np.int64], ...]
    chances: npt.NDArray[np.float64]
    class_of: npt.NDArray[np.int64]
    sized: tuple[npt.NDArray[np.int64], ...]
    distractors: int = 0


def catalogue(class_ids: npt.ArrayLike, shares: npt.ArrayLike, balance: str, distractors: int = 0) -> Catalogue:
    """Catalogue of segments with these class ids and sizes relative to their bags (0: unknown).

    balance: 'instance' draws every segment alike, 'class' every class, 'sqrt' classes by the root of their numbers.
    """
    ids, known = np.asarray(class_ids), np.asarray(shares) > 0
    used, class_of = np.unique(ids, return_inverse=True)
    members = tuple(np.flatnonzero(class_of == place) for place in range(len(used)))
    counts = np.array([len(places) for places in members], np.float64)
    weights = counts ** {"instance": 1.0, "sqrt": 0.5, "class": 0.0}[balance]
    sized = tuple(places[known[places]] if known[places].any() else places for places in members)
    return Catalogue(members, np.cumsum(weights) / weights.sum(), class_of, sized, distractors)


@dataclass(frozen=True)
class Paste:
    """One object to be pasted.

    Attributes:
        segment: place in the objects' bank, or in the distractors' when `distractor`.
        size_of: segment of the same class whose size relative to its bag this one is given.
        scale: factor on that size.
        rotation: degrees, counter-clockwise, in [0, 360).
        flip: mirrored left to right before the rotation.
        pose: shear, and perspective along x and along y, relative to the object's size.
        coefficient: composition coefficient, in (0, 1].
        occlusion: wanted rank, 0 to 1, of the background's darkness among the places tried.
        positions: TRIES numbers in [0, 1): ranks among the bag's pixels of the object's centre.
        distractor: whether it is a benign look-alike, pasted without a label.
    """

    segment: int
    size_of: int
    scale: float
    rotation: float
    flip: bool
    pose: tuple[float, float, float]
    coefficient: float
    occlusion: float
    positions: tuple[float, ...]
    distractor: bool = False


@dataclass(frozen=True)
class View:
    """One picture: candidates for its benign scan in order of preference, and what is pasted, subject first."""

    backgrounds: tuple[int, ...]
    pastes: tuple[Paste, ...]


@dataclass(frozen=True)
class Pair:
    """A sample: an object of one class in two independent views."""

    index: int
    key: View
    query: View


def plan_pair(config: Config, catalogue: Catalogue, backgrounds: int, index: int) -> Pair:
    """Draw sample `index` for `backgrounds` >= 2 benign scans."""
    rng = np.random.default_rng([config.seed, index])
    draws: Iterator[float] = iter(rng.random(8 + 2 * (CANDIDATES + 4)).tolist())
    group = _class(catalogue, next(draws))
    members = catalogue.members[group]
    first, step = int(next(draws) * len(members)), int(next(draws) * (len(members) - 1))
    second = first if config.positives == "instance" else (first + 1 + step) % len(members)
    subjects = [int(members[first]), int(members[second])]
    views = []
    for subject in subjects:
        scans = tuple(int(next(draws) * backgrounds) for _ in range(CANDIDATES))
        low, high = config.items
        more = low + int(next(draws) * (high - low + 1)) - 1
        look_alike = next(draws) < config.distractors and catalogue.distractors > 0
        numbers: Iterator[float] = iter(rng.random((more + 2) * DRAWS).tolist())
        pastes = [_paste(config, catalogue, subject, numbers)]
        for _ in range(more):
            other = _member(catalogue.members[_class(catalogue, next(numbers))], next(numbers))
            pastes.append(_paste(config, catalogue, other, numbers))
        if look_alike:
            pastes.append(_paste(config, catalogue, int(next(numbers) * catalogue.distractors), numbers, True))
        views.append(View(scans, tuple(pastes)))
    return Pair(index, *views)


def _class(catalogue: Catalogue, draw: float) -> int:
    return min(bisect_right(catalogue.chances, draw), len(catalogue.members) - 1)


def _member(places: npt.NDArray[np.int64], draw: float) -> int:
    return int(places[int(draw * len(places))])


def _paste(
    config: Config, catalogue: Catalogue, segment: int, draws: Iterator[float], distractor: bool = False
) -> Paste:
    low, high = config.scale
    least, most = config.coefficient
    from_rank, to_rank = config.occlusion
    alike = next(draws)
    return Paste(
        segment=segment,
        size_of=segment if distractor else _member(catalogue.sized[catalogue.class_of[segment]], alike),
        scale=round(low * (high / low) ** next(draws), 4),
        rotation=round(360 * next(draws), 1) % 360,
        flip=next(draws) < 0.5,
        pose=(
            round(SHEAR * (2 * next(draws) - 1), 4),
            round(PERSPECTIVE * (2 * next(draws) - 1), 4),
            round(PERSPECTIVE * (2 * next(draws) - 1), 4),
        ),
        coefficient=round(least + (most - least) * next(draws), 4),
        occlusion=from_rank + (to_rank - from_rank) * next(draws),
        positions=tuple(next(draws) for _ in range(TRIES)),
        distractor=distractor,
    )
