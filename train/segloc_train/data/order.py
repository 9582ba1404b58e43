"""Which sample is seen when: pure functions of seeds, counts and scans' names, no data read."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HELD_OUT_SHARE, HELD_OUT_MIN, HELD_OUT_MAX = 0.05, 64, 512
Places = NDArray[np.int64]


def derived_seed(*path: int) -> int:
    """A 63-bit seed for the stream of random numbers that `path` (seed, purpose, epoch, step, ...) names."""
    return int(np.random.SeedSequence(path).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Split:
    """Pairs to train on and pairs to measure on.

    Attributes:
        train, held_out: int64, places of pairs, ascending. Pairs in neither show a scan of each kind, or are more
            than HELD_OUT_MAX.
        scans: names of the scans whose objects no training pair is about; empty where the split is by pair. Further
            objects of theirs may lie in training pictures (--items), and all benign scans are shared.
        warning: one line where the split is not by scan, else empty.
    """

    train: Places
    held_out: Places
    scans: tuple[str, ...]
    warning: str = ""


def split(scans: NDArray[np.int32], names: Sequence[str]) -> Split:
    """Hold out pairs by the scans that their two segments come from.

    Scans are held out in the order of the hashes of their names: the 5 % whose hash is below 5 % of its range (at
    least one), and more of them until they hold HELD_OUT_MIN pairs, but no more than a quarter of the pairs may show
    any. A scan shown by more than a quarter alone is never held out. So all runs on a set are scored on the same
    pairs, whatever their seed, and a scan held out of a large set is held out of every larger one.

    Held out are at most HELD_OUT_MAX of the pairs of which both scans are. Where there is no such pair (all pairs from
    very few scans), pairs are held out by a fixed draw, and the split's `warning` says so.

    Args:
        scans: int32 [N, 2], positions in `names` of the two scans of each pair.
        names: of scans.
    """
    count = len(scans)
    shown = np.zeros(len(names), np.int64)
    np.add.at(shown, scans[:, 0], 1)
    np.add.at(shown, scans[scans[:, 0] != scans[:, 1], 1], 1)
    hashes = np.array([_hash(name) for name in names], np.uint64)
    hashes[(shown == 0) | (shown > count // 4)] = np.iinfo(np.uint64).max  # never held out
    both = np.sort(hashes[scans], 1)
    # A cut after each scan, in the order of hashes: so many pairs show a scan before it, so many show two.
    cuts = np.unique(hashes)[1:]
    touched, within = (np.searchsorted(np.sort(both[:, side]), cuts) for side in (0, 1))
    allowed = int((touched <= count // 4).sum())
    wanted = (cuts > HELD_OUT_SHARE * 2.0**64) & (within >= HELD_OUT_MIN)
    best = min(int(wanted.argmax()) if wanted.any() else allowed, allowed - 1)
    if best < 0 or within[best] == 0:
        return _by_pair(count)
    out = hashes < cuts[best]
    held_out = np.flatnonzero(both[:, 1] < cuts[best])
    held_out = np.sort(held_out[np.argsort(_draw(held_out), kind="stable")[:HELD_OUT_MAX]])
    names_out = tuple(name for name, is_out in zip(names, out, strict=True) if is_out)
    return Split(np.flatnonzero(both[:, 0] >= cuts[best]), held_out, names_out)


def _by_pair(count: int) -> Split:
    """5 % of the pairs, HELD_OUT_MIN to HELD_OUT_MAX, never more than a quarter, by a fixed draw."""
    wanted = min(max(round(HELD_OUT_SHARE * count), HELD_OUT_MIN), HELD_OUT_MAX, count // 4)
    places = np.argsort(_draw(np.arange(count)), kind="stable")
    warning = (
        "the pairs show too few scans to hold some out: single pairs are held out, which show scans that are trained "
        "on, so held-out accuracy tells little"
    )
    return Split(np.sort(places[wanted:]), np.sort(places[:wanted]), (), warning)


def _hash(name: str) -> int:
    """64 bits that depend on the name alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest())


def _draw(places: Places) -> NDArray[np.uint64]:
    """A fixed pseudo-random number for each place: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = (places.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def quotas(count: int, weights: Sequence[float]) -> list[int]:
    """`count` cut in proportion to `weights`, by largest remainders."""
    exact = count * np.asarray(weights, float) / sum(weights)
    parts = np.floor(exact).astype(np.int64)
    more = np.argsort(parts - exact, kind="stable")[: count - int(parts.sum())]
    parts[more] += 1
    return parts.tolist()


def epoch_places(parts: Sequence[Places], weights: Sequence[float], seed: int, epoch: int) -> Places:
    """The places of an epoch in the order in which they are seen, as many as there are in all `parts` together.

    Without weights every place once. With weights, set i gets its share of the epoch: the next so many of an endless
    sequence of permutations of its places, where the epoch before ended; so each of its places has been seen equally
    often at any time, but for one. A function of (seed, epoch) and the arguments, nothing else.
    """
    count = sum(map(len, parts))
    if weights:
        shares = quotas(count, weights)
        drawn = [
            places[_endless(len(places), [seed, number], epoch * share, (epoch + 1) * share)]
            for number, (places, share) in enumerate(zip(parts, shares, strict=True))
        ]
    else:
        drawn = list(parts)
    return np.concatenate(drawn)[np.random.default_rng([seed, epoch]).permutation(count)]


def _endless(count: int, seed: list[int], start: int, stop: int) -> Places:
    """Elements start..stop of permutation after permutation of 0..count-1."""
    if start == stop:
        return np.empty(0, np.int64)
    rounds = range(start // count, (stop - 1) // count + 1)
    found = np.concatenate([np.random.default_rng([*seed, number]).permutation(count) for number in rounds])
    return found[start - rounds.start * count : stop - rounds.start * count]


def cut(order: Places, batch: int, rank: int = 0, world: int = 1) -> Places:
    """int64 [steps, batch // world]: what `rank` of `world` sees at each step, rows of the global batch in order.

    The order is cut into len // batch global batches and each of these over the ranks, so all ranks have the same
    number of steps and together see all of it, but for the last len % batch. `batch` is the global one, a multiple of
    `world`.
    """
    steps = len(order) // batch
    return order[: steps * batch].reshape(steps, world, batch // world)[:, rank]


@dataclass(frozen=True)
class BatchOrder:
    """The batches of a whole run from a step on, this rank's rows: what a DataLoader takes as batch_sampler.

    Resuming inside an epoch skips in the order; nothing is read or decoded for it.

    Attributes:
        places: int64, ascending, places of the training pairs.
        seed, epochs: of the run.
        batch: pairs of a global batch.
        start: steps already done, over the whole run.
        rank, world: this process and how many there are.
        starts, weights: first place of each set, and how much is drawn from it; both empty where every pair is seen
            once in an epoch.
    """

    places: Places
    seed: int
    batch: int
    epochs: int
    start: int = 0
    rank: int = 0
    world: int = 1
    starts: Sequence[int] = ()
    weights: Sequence[float] = ()

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.places) // self.batch

    def __iter__(self) -> Iterator[list[int]]:
        parts = np.split(self.places, np.searchsorted(self.places, self.starts[1:]))
        for epoch in range(self.start // self.steps, self.epochs):
            order = cut(epoch_places(parts, self.weights, self.seed, epoch), self.batch, self.rank, self.world)
            skip = self.start - epoch * self.steps if epoch == self.start // self.steps else 0
            for row in order[skip:]:
                yield row.tolist()

    def __len__(self) -> int:
        return self.epochs * self.steps - self.start
