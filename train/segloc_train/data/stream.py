"""Sets larger than any cache: shards read from end to end through the webdataset library, shuffled in a buffer.

An epoch is the training pairs of all shards, or of weighted sets as many in proportion, in the order of its shuffled
shards. That sequence is cut into equal pieces, over the ranks and then over their workers, wherever in a shard a cut
falls: so all ranks have the same steps, known from the counts alone, however the shards differ in size, and every
training pair is seen once, but for the last that make no full batch. A cut shard is read by two workers.

The order depends on the seed, the epoch, and the numbers of ranks and workers; it goes on at epochs only.
"""

import random
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import click
import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from segloc_synth.console import faults_of
from segloc_synth.files import as_path
from segloc_synth.shards.format import MAX_RECORD, MEMBERS, Sample, parse_record
from segloc_train.data.data import MAX_JPEG, Batch, Encoded, Pair, Pairs
from segloc_train.data.loader import StoodIn, decode_on, leave_group
from segloc_train.data.order import derived_seed, quotas
from segloc_train.data.sources import Part, Sources

BUFFER = 2000  # pairs that a worker shuffles, about 75 MB of JPEG files at 256 px


@dataclass(frozen=True)
class Run:
    """Consecutive training pairs of a shard: those number first..stop - 1 among its training pairs."""

    part: int
    first: int
    stop: int


@dataclass(frozen=True)
class StreamOrder:
    """What a rank reads in which epoch; the counterpart of BatchOrder.

    Attributes:
        sources: the run's data.
        places: int64, ascending, places of the training pairs.
        seed, epochs: of the run.
        batch: pairs of a global batch, a multiple of `world`.
        start: epochs already done.
        rank, world: this process and how many there are.
    """

    sources: Sources
    places: NDArray[np.int64]
    seed: int
    batch: int
    epochs: int
    start: int = 0
    rank: int = 0
    world: int = 1

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.places) // self.batch

    def __len__(self) -> int:
        return (self.epochs - self.start) * self.steps

    def rows(self, part: Part) -> NDArray[np.int64]:
        """int64, ascending, rows of a shard's training pairs."""
        first, stop = np.searchsorted(self.places, [part.first, part.first + part.count])
        return self.places[first:stop] - part.first

    def runs(self, epoch: int, worker: int = 0, workers: int = 1) -> tuple[list[Run], int]:
        """What a worker of this rank reads in an epoch, in order, and how many batches it makes of it."""
        share = self.batch // self.world
        mine = [len(range(one, self.steps, workers)) * share for one in range(workers)]
        first = self.rank * self.steps * share + sum(mine[:worker])
        return _between(epoch_runs(self, epoch), first, first + mine[worker]), mine[worker] // share


def epoch_runs(order: StreamOrder, epoch: int) -> list[Run]:
    """The shards of an epoch, shuffled, with as many training pairs as there are in all.

    Without weights every training pair once. With weights, set i gets its share: the next so many of an endless
    sequence of its shards, shuffled anew each time through, where the epoch before ended.
    """
    parts = order.sources.parts
    bounds = [part.first for part in parts] + [len(order.sources)]
    counts = np.diff(np.searchsorted(order.places, bounds))
    if not order.sources.weights:
        runs = [Run(number, 0, count) for number, count in enumerate(counts.tolist()) if count]
    else:
        runs = []
        for number, share in enumerate(quotas(len(order.places), order.sources.weights)):
            own = [place for place, part in enumerate(parts) if part.set == number]
            start, total = epoch * share, int(counts[own].sum())
            for time in range(start // total, -(-(start + share) // total)):
                shuffled = np.random.default_rng([order.seed, number, time]).permutation(own).tolist()
                whole = [Run(part, 0, int(counts[part])) for part in shuffled]
                runs += _between(whole, start - time * total, start + share - time * total)
    return [runs[n] for n in np.random.default_rng([order.seed, epoch]).permutation(len(runs))]


def _between(runs: Sequence[Run], first: int, stop: int) -> list[Run]:
    """Pairs first..stop - 1 of the sequence that the runs make up."""
    found, at = [], 0
    for run in runs:
        low, high = max(first - at, 0), min(stop - at, run.stop - run.first)
        if low < high:
            found.append(Run(run.part, run.first + low, run.first + high))
        at += run.stop - run.first
    return found


class Stream(IterableDataset[Any]):
    """Yields the batches of an order's epochs, this worker's share, as Pairs makes them; an error as a value."""

    def __init__(self, pairs: Pairs, order: StreamOrder) -> None:
        self.pairs, self.order = pairs, order

    def __iter__(self) -> Iterator[Batch | Encoded | click.ClickException]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        try:
            yield from self._epoch(self.order.start, worker, workers)
        except click.ClickException as error:
            yield error

    def _epoch(self, epoch: int, worker: int, workers: int) -> Iterator[Batch | Encoded]:
        """The batches of one epoch."""
        order = self.order
        runs, steps = order.runs(epoch, worker, workers)
        share = order.batch // order.world
        problems: list[str] = []
        rng = random.Random(derived_seed(order.seed, epoch, order.rank, worker))
        pipeline = webdataset.DataPipeline(
            lambda: self._passes(runs, problems),
            webdataset.shuffle(BUFFER, initial=BUFFER, rng=rng),
        )
        stream = iter(pipeline)
        for _ in range(steps):
            pairs = list(islice(stream, share))
            try:
                yield self.pairs.assemble(pairs, tuple(problems))
            except (RuntimeError, ValueError):  # a picture is damaged behind its header, or a mask is
                yield self._mended(pairs, problems)
            problems.clear()

    def _mended(self, pairs: Sequence[Pair], problems: list[str]) -> Batch | Encoded:
        """The batch of those of the pairs that can be decoded; one of them stands in for each other."""
        good = []
        for pair in pairs:
            try:
                self.pairs.try_decode(pair)
                good.append(pair)
            except click.ClickException as error:
                if self.order.sources.on_bad_shard == "stop":
                    raise
                problems.append(error.message)
        if not good:
            raise click.ClickException(f"{problems[-1]}; none of a batch can be read")
        return self.pairs.assemble([good[n % len(good)] for n in range(len(pairs))], tuple(problems))

    def _passes(self, runs: Sequence[Run], problems: list[str]) -> Iterator[Pair]:
        """The pairs of the runs; again from the start where damaged ones were left out and some are missing."""
        missing = sum(run.stop - run.first for run in runs)
        while missing:
            before = missing
            for run in runs:
                for pair in self._pairs(run, problems):
                    yield pair
                    missing -= 1
                    if not missing:
                        return
            if missing == before:
                raise click.ClickException(f"{problems[-1]}; none of the pairs can be read")

    def _pairs(self, run: Run, problems: list[str]) -> Iterator[Pair]:
        """The pairs of a run that are in order."""
        part = self.order.sources.parts[run.part]
        wanted = set(self.order.rows(part)[run.first : run.stop].tolist())
        skip = self.order.sources.on_bad_shard == "skip"
        members = _members(part, max(wanted), self.order.sources.image_size)
        try:
            for row, sample in enumerate(webdataset.tariterators.group_by_keys(members)):
                key = f"{row + part.offset + part.first:012d}"
                if sample["__key__"] != key:
                    raise _damaged(part, f"holds {sample['__key__'][:40]} where {key} should be")
                if row in wanted:
                    try:
                        yield self._checked(part, row, sample)
                    except click.ClickException as error:
                        if not skip:
                            raise
                        problems.append(error.message)
                    wanted.discard(row)
            if wanted:
                raise _damaged(part, f"ends before {min(wanted) + part.offset + part.first:012d}")
        except click.ClickException as error:
            if not skip:
                raise
            problems.append(error.message)

    def _checked(self, part: Part, row: int, sample: dict[str, Any]) -> Pair:
        place = part.first + row
        meta = parse_record(sample.get("json", b""))
        if meta is None or "key.jpg" not in sample or "query.jpg" not in sample:
            raise self.order.sources.damaged(place, ".json is damaged")
        return self.pairs.checked(place, Sample(meta, sample["key.jpg"], sample["query.jpg"]))


def _damaged(part: Part, what: str) -> click.ClickException:
    return click.ClickException(f"{part.path}: {what}; {part.reader.remedy}")


def _members(part: Part, last: int, size: int) -> Iterator[dict[str, Any]]:
    """The members of a shard's samples 0..last as webdataset groups them: {"fname", "data", "__url__"}.

    webdataset's own tar reader believes what a header says: here only plain files are read, of bounded size, whose name
    is a key and a kind of member. click.ClickException where the tar is damaged or ends too early.
    """
    path = str(part.path)
    limit = {MEMBERS[0]: MAX_RECORD, **dict.fromkeys(MEMBERS[1:], MAX_JPEG[0] + MAX_JPEG[1] * size * size)}
    with faults_of(path, missing=f"is missing; {part.reader.remedy}"):
        try:
            with as_path(path).open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
                for number, member in zip(range((last + 1) * len(MEMBERS)), tar, strict=False):
                    key, _, kind = member.name.partition(".")
                    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.sparse
                    if not (plain and key.isdecimal() and kind == MEMBERS[number % len(MEMBERS)]):
                        raise _damaged(part, f"member {member.name[:60]!r} is none of a sample's")
                    if member.size > limit[kind]:
                        raise _damaged(part, f"{member.name} is {member.size} bytes long")
                    content = tar.extractfile(member)
                    assert content is not None
                    data = content.read()
                    if len(data) < member.size:
                        raise _damaged(part, f"ends inside {member.name}")
                    yield {"fname": member.name, "data": data, "__url__": path}
                    tar.members = []  # type: ignore[attr-defined]  # it keeps a list of all else
        except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
            raise _damaged(part, f"is damaged ({str(error) or type(error).__name__})") from None


def stream_batches(
    pairs: Pairs, order: StreamOrder, workers: int, device: torch.device
) -> Iterator[Batch | click.ClickException]:
    """The batches of an order, read by `workers` processes (0: in this one), as `data.batches` gives them."""
    stood_in = StoodIn()
    for epoch in range(order.start, order.epochs):
        loader = DataLoader(
            Stream(pairs, replace(order, start=epoch)),
            batch_size=None,
            num_workers=workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=leave_group,
        )
        steps = 0
        for item in loader:
            batch = decode_on(device, item, pairs) if isinstance(item, Encoded) else item
            if isinstance(batch, Batch):
                stood_in.note(batch.problems)
                steps += 1
            yield batch
        if steps != order.steps:
            yield click.ClickException(f"epoch {epoch + 1}: {steps} steps were read, the counts say {order.steps}")
