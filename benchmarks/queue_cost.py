"""What do exact class queues cost? The key store beside naive queues, MoCo's queue, and one queue by the same kernels.

A step enqueues a batch's keys, computes the loss of its queries on five levels against their negatives, and goes back
to the queries. Times are the median of repetitions that take turns; the ratios matter, the times are this machine's.
Memory: what a way keeps between steps, and the most that a step takes on top, gradients included.

  naive     C queues [C, levels, K, dim]; one matrix product per class and level, with the queries of that class
  moco      MoCo as published (facebookresearch/moco, moco/builder.py): a queue [dim, K] for each level, no classes
  one       the last K keys whatever their class, walked by the store's own kernels
  store     the key store
  worst     the key store after K keys of one class and K of another: no stream needs more slots

  python benchmarks/queue_cost.py --json queues.json
  python benchmarks/queue_cost.py --device cuda
"""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segloc_synth.files import write_json
from segloc_train.methods.common.contrast import info_nce
from segloc_train.methods.common.queues import KeyStore

LEVELS, DIM, CLASSES, TEMPERATURE = 5, 128, 12, 0.2
Batch = tuple[Tensor, Tensor, Tensor]  # queries and keys [B, levels, dim] on the device, labels int64 [B] on the CPU


class Way(Protocol):
    """A way to keep negatives."""

    def enqueue(self, keys: Tensor, labels: Tensor) -> None: ...

    def loss(self, queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
        """Mean over the queries, summed over levels."""

    def held(self) -> dict[str, float]:
        """Bytes of the keys, of all that is on the device (`held`), and on the host beside it."""


def cross_entropy(positive: Tensor, negatives: Tensor) -> Tensor:
    """Mean of the loss, the positive being logit 0: positive [n, 1], negatives [n, K]."""
    logits = torch.cat([positive, negatives], dim=1)
    logits /= TEMPERATURE
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


class Naive:
    """A queue for each class, straight from the definition."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.queues = torch.zeros(CLASSES, LEVELS, capacity, DIM, device=device)
        self.heads = [0] * CLASSES

    def enqueue(self, keys: Tensor, labels: Tensor) -> None:
        capacity = self.queues.shape[2]
        for c in range(CLASSES):
            others = (labels != c).nonzero()[:, 0]
            places = (self.heads[c] + torch.arange(len(others))) % capacity
            self.queues[c].index_copy_(1, places.to(keys.device), keys.transpose(0, 1)[:, others.to(keys.device)])
            self.heads[c] = (self.heads[c] + len(others)) % capacity

    def loss(self, queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
        total = queries.new_zeros(())
        for c in labels.unique().tolist():
            rows = (labels == c).nonzero()[:, 0].to(queries.device)
            for level in range(LEVELS):
                q = queries[rows, level]
                positive = (q * keys[rows, level]).sum(1, keepdim=True)
                negatives = q @ self.queues[c, level].T
                total = total + cross_entropy(positive, negatives) * (len(rows) / len(labels))
        return total

    def held(self) -> dict[str, float]:
        return {"keys": self.queues.nbytes, "held": self.queues.nbytes, "host": 0}


class Moco:
    """MoCo's dequeue-and-enqueue and logits, on each level."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.queues = [F.normalize(torch.randn(DIM, capacity, device=device), dim=0) for _ in range(LEVELS)]
        self.head = 0

    def enqueue(self, keys: Tensor, labels: Tensor) -> None:
        batch, capacity = len(keys), self.queues[0].shape[1]
        if capacity % batch:
            raise click.ClickException(f"MoCo needs a queue that is a multiple of the batch, not {capacity} of {batch}")
        for level, queue in enumerate(self.queues):
            queue[:, self.head : self.head + batch] = keys[:, level].T
        self.head = (self.head + batch) % capacity

    def loss(self, queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
        total = queries.new_zeros(())
        for level, queue in enumerate(self.queues):
            q, k = queries[:, level], keys[:, level]
            positive = torch.einsum("nc,nc->n", [q, k]).unsqueeze(-1)
            negatives = torch.einsum("nc,ck->nk", [q, queue.clone().detach()])
            total = total + cross_entropy(positive, negatives)
        return total

    def held(self) -> dict[str, float]:
        size = sum(queue.nbytes for queue in self.queues)
        return {"keys": size, "held": size, "host": 0}


class Stored:
    """The key store: of all classes, or as the plain FIFO that it is without them."""

    def __init__(self, classes: int, capacity: int, device: torch.device) -> None:
        self.store = KeyStore(LEVELS, classes, capacity, DIM, torch.Generator().manual_seed(0), device)
        self.enqueue = self.store.enqueue

    def loss(self, queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor:
        store = self.store
        if not store.classes:
            return info_nce(queries, keys, store.keys, store.recent, TEMPERATURE)[0].mean(0).sum()
        rows = labels.to(queries.device, non_blocking=True)
        return info_nce(queries, keys, store.keys, store.visible, TEMPERATURE, rows)[0].mean(0).sum()

    def held(self) -> dict[str, float]:
        parts = vars(self.store).values()
        return {
            "keys": self.store.keys.nbytes,
            "held": sum(x.untyped_storage().nbytes() for x in parts if isinstance(x, Tensor)),
            "host": sum(x.nbytes for x in parts if isinstance(x, np.ndarray)),
        }


def random_batch(size: int, device: torch.device, seed: int, label: int | None = None) -> Batch:
    """Unit queries and keys, labels even over the classes or all alike."""
    draws = torch.Generator().manual_seed(seed)
    queries, keys = F.normalize(torch.randn(2, size, LEVELS, DIM, generator=draws), dim=-1).to(device)
    labels = torch.randint(CLASSES, (size,), generator=draws) if label is None else torch.full((size,), label)
    return queries, keys, labels


def ways(capacity: int, device: torch.device) -> dict[str, Way]:
    """All ways, with real keys only: K of them, and K more."""
    found: dict[str, Way] = {
        "naive": Naive(capacity, device),
        "moco": Moco(capacity, device),
        "one": Stored(0, capacity, device),
        "store": Stored(CLASSES, capacity, device),
        "worst": Stored(CLASSES, capacity, device),
    }
    size = min(1024, capacity)
    for number in range(2 * capacity // size):
        _, keys, labels = random_batch(size, device, number)
        for name, way in found.items():
            one_of_two = torch.full_like(labels, int(number < capacity // size))
            way.enqueue(keys, one_of_two if name == "worst" else labels)
    return found


def step(way: Way, batch: Batch) -> Tensor:
    """The gradient of the queries."""
    queries, keys, labels = batch
    queries = queries.detach().requires_grad_()
    way.enqueue(keys, labels)
    way.loss(queries, keys, labels).backward()
    assert queries.grad is not None
    return queries.grad


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time of one call; on CUDA between events in the stream, waited for afterwards."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def most_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most that a call allocates beside what there was before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measure(found: dict[str, Way], size: int, repeat: int, device: torch.device) -> dict[str, dict[str, float]]:
    """By way: seconds a step (median), most bytes of a step, bytes held."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(repeat + 1):
        for name, way in found.items():
            # the worst store stays the worst: class 0 goes on owning the stream, its queue holds class 1
            batch = random_batch(size, device, turn, 0 if name == "worst" else None)
            took = seconds(lambda way=way, batch=batch: step(way, batch), device)  # type: ignore[misc]
            if turn:  # the first warms up
                times[name].append(took)
    measured = {}
    for name, way in found.items():
        batch = random_batch(size, device, 0, 0 if name == "worst" else None)
        most = most_bytes(lambda way=way, batch=batch: step(way, batch), device)  # type: ignore[misc]
        measured[name] = {"seconds": statistics.median(times[name]), "peak": most} | way.held()
    return measured


def goals(measured: dict[int, dict[str, dict[str, float]]], capacity: int) -> list[tuple[str, str, str]]:
    """Rows of what, goal, measured."""
    rows = []
    for size, by_way in measured.items():
        for other, goal in (("moco", "<= 1.00"), ("one", "<= 1.25"), ("naive", "")):
            ratio = by_way["store"]["seconds"] / by_way[other]["seconds"]
            rows.append((f"batch {size}: time of the store / {other}", goal, f"{ratio:.2f}"))
    last = list(measured.values())[-1]
    for way, goal in (("store", "<= 1.15"), ("worst", ""), ("naive", "")):
        rows.append((f"memory of {way} / one", goal, f"{last[way]['held'] / last['one']['held']:.2f}"))
    rows.append(("keys of worst, in K", "<= 2.00", f"{last['worst']['keys'] / (4 * LEVELS * DIM * capacity):.2f}"))
    return rows


@click.command()
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--queue-size", type=click.IntRange(min=256), default=65536, show_default=True, help="K.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--repeat", type=click.IntRange(min=1), default=7, show_default=True, help="Repetitions, taking turns.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Also write all measurements here.")
def main(device: str, queue_size: int, threads: int, repeat: int, report: Path | None) -> None:
    """Measure what queues cost at batch 32 and 256; prints measurements and goals."""
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("--device cuda: no CUDA device is available")
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high")  # as the trainer sets it; TF32 on CUDA
    where = torch.device(device)
    name = torch.cuda.get_device_name() if device == "cuda" else f"{threads} CPU threads"
    loads = [os.getloadavg()[0]]
    found = ways(queue_size, where)
    measured = {}
    click.echo(f"K = {queue_size}, {CLASSES} classes, {LEVELS} levels, dim {DIM}; {name}")
    click.echo(f"{'batch':>5} {'way':8}{'ms':>10}{'/ moco':>9}{'/ one':>9}{'MB':>9}{'host MB':>9}{'peak MB':>9}")
    for size in (32, 256):
        measured[size] = rows = measure(found, size, repeat, where)
        loads.append(os.getloadavg()[0])
        for way, row in rows.items():
            ratios = "".join(f"{row['seconds'] / rows[other]['seconds']:9.2f}" for other in ("moco", "one"))
            sizes = "".join(f"{row[key] / 1e6:9.1f}" for key in ("held", "host", "peak"))
            click.echo(f"{size:5} {way:8}{1e3 * row['seconds']:10.2f}{ratios}{sizes}")
    for what, goal, value in goals(measured, queue_size):
        click.echo(f"{what:40}{goal:>10}{value:>10}")
    click.echo(f"load average {min(loads):.1f} to {max(loads):.1f}")
    if report:
        settings = {"device": name, "queue_size": queue_size, "threads": threads, "load": loads}
        write_json(report, settings | {"measured": measured, "goals": goals(measured, queue_size)})


if __name__ == "__main__":
    main()
