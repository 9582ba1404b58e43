"""Which sample is seen when: pure functions of seeds and counts, no data read."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HELD_OUT_SHARE, HELD_OUT_MIN, HELD_OUT_MAX = 0.05, 64, 512


def derived_seed(*path: int) -> int:
    """A 63-bit seed for the stream of random numbers that `path` (seed, purpose, epoch, step, ...) names."""
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0] >> np.uint64(1))


def held_out_count(count: int) -> int:
    """Pairs kept from training: 5 % of `count`, 64 to 512, never more than a quarter of the set."""
    wanted = min(max(round(HELD_OUT_SHARE * count), HELD_OUT_MIN), HELD_OUT_MAX)
    return min(wanted, count // 4)


def split(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the training and of the held-out pairs, each sorted.

    It depends on `count` alone, not on a run's seed, so that all runs on a set are scored on the same pairs.
    """
    places = np.random.default_rng(count).permutation(count)
    held_out = held_out_count(count)
    return np.sort(places[held_out:]), np.sort(places[:held_out])


def epoch_order(seed: int, epoch: int, count: int, batch: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
    """int64 [steps, batch // world]: what `rank` of `world` sees at each step of an epoch, in 0..count-1.

    A full permutation per (seed, epoch), cut into count // batch global batches and each of these over the
    ranks, so all ranks have the same number of steps and together see every place once, but for the last
    count % batch of the permutation. `batch` is the global one, a multiple of `world`.
    """
    places = np.random.default_rng([seed, epoch]).permutation(count)
    steps = count // batch
    return places[: steps * batch].reshape(steps, world, batch // world)[:, rank]


@dataclass(frozen=True)
class BatchOrder:
    """The batches of a whole run from a step on: what a DataLoader takes as batch_sampler.

    Resuming inside an epoch skips in the order; nothing is read or decoded for it.
    """

    places: NDArray[np.int64]
    seed: int
    batch: int
    epochs: int
    start: int = 0  # steps already done, over the whole run

    def __iter__(self) -> Iterator[list[int]]:
        steps = len(self.places) // self.batch
        for epoch in range(self.start // steps, self.epochs):
            order = epoch_order(self.seed, epoch, len(self.places), self.batch)
            skip = self.start - epoch * steps if epoch == self.start // steps else 0
            for row in order[skip:]:
                yield self.places[row].tolist()

    def __len__(self) -> int:
        return self.epochs * (len(self.places) // self.batch) - self.start
