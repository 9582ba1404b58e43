"""The numbers of one (arm, seed) on every split, under many resamplings of its scans.

Bootstrap over images: Efron and Tibshirani, An Introduction to the Bootstrap, 1993. The draws are the same for every
arm and seed, so that differences between them are paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from segloc_eval.numbers.matches import Matches, concatenate
from segloc_eval.numbers.precision import PRECISIONS, average_precision, mean, summary
from segloc_eval.numbers.score import MEAN, POOLED

DRAWS = 1000


class Sampled(NamedTuple):
    """One number: float64 [1 + draws], of the scans as they are, then of each draw; and the scans that decide it."""

    values: NDArray[np.float64]
    scans: int


Numbers = dict[str, Sampled]


@dataclass(frozen=True)
class SampledUnit:
    """What one (arm, seed) reached: split (MEAN and POOLED too where there are several) -> name -> Sampled."""

    splits: dict[str, Numbers]
    per_class: dict[str, Numbers]


class Part(Protocol):
    """What the numbers of one split are read from: a table of matches, or of confusion counts."""

    @property
    def images(self) -> int: ...


P = TypeVar("P", bound=Part)


def sample_matches(tables: Mapping[str, Matches], draws: int = DRAWS, seed: int = 0) -> SampledUnit:
    """The numbers of a detector: PRECISIONS and AP per class of every split."""
    return sample(tables, concatenate, _read_matches, draws, seed)


def sample(
    parts: Mapping[str, P],
    join: Callable[[list[P]], P],
    read: Callable[[P, NDArray[Any]], tuple[Numbers, Numbers]],
    draws: int,
    seed: int,
) -> SampledUnit:
    """Read the numbers and those per class from each split (and all joined) under weights [1 + draws, images].

    The draws depend on the seed, the number of draws, and each split's place and number of images; on nothing else.
    """
    weights = {
        split: np.concatenate([np.ones((1, part.images), np.uint16), resample(part.images, draws, [seed, place])])
        for place, (split, part) in enumerate(parts.items())
    }
    both = {split: read(part, weights[split]) for split, part in parts.items()}
    if len(parts) > 1:
        every = list(both.values())
        both[MEAN] = (_mean([one[0] for one in every]), _mean([one[1] for one in every]))
        both[POOLED] = read(join(list(parts.values())), np.concatenate(list(weights.values()), axis=1))
    return SampledUnit({split: one[0] for split, one in both.items()}, {split: one[1] for split, one in both.items()})


def resample(images: int, draws: int, seed: int | Sequence[int]) -> NDArray[np.uint16]:
    """How often each image is drawn, uint16 [draws, images]: as many as there are, with replacement."""
    rng = np.random.default_rng(seed)
    out = np.zeros((draws, images), np.uint16)
    if images:
        for row in out:
            row[:] = np.bincount(rng.integers(0, images, images), minlength=images)
    return out


def _read_matches(table: Matches, weights: NDArray[Any]) -> tuple[Numbers, Numbers]:
    precision = average_precision(table, weights)

    def scans(chosen: NDArray[np.bool_]) -> int:
        return len(np.unique(table.object_image[chosen]))

    sizes = dict.fromkeys(PRECISIONS, 0) | {"APs": 1, "APm": 2, "APl": 3}
    overall = {
        name: Sampled(values, scans(table.counted[:, sizes[name]])) for name, values in summary(precision).items()
    }
    classes = mean(precision[:, :, 0])
    return overall, {
        name: Sampled(classes[:, label], scans(table.counted[:, 0] & (table.object_label == label)))
        for label, name in enumerate(table.classes)
    }


def _mean(splits: list[Numbers]) -> Numbers:
    """Mean over the splits that have the number."""
    return {
        name: Sampled(mean(np.stack([one[name].values for one in splits], 1)), sum(one[name].scans for one in splits))
        for name in splits[0]
    }
