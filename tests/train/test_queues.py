"""The key store against one queue per class, written from the definition."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.conftest import Forked
from torch import Tensor

from segloc_train.methods.common.queues import GROWTH, NO_CLASS, KeyStore

LEVELS, DIM = 2, 3


class NaiveQueues:
    """Queue of class c: the last K keys whose class is not c; the start keys are the oldest, of no class.

    The last queue takes every key: a plain FIFO.
    """

    def __init__(self, start: Tensor, classes: int) -> None:
        self.queues = [[(start[:, i], NO_CLASS) for i in range(start.shape[1])] for _ in range(classes + 1)]

    def enqueue(self, keys: Tensor, labels: list[int]) -> None:
        for key, label in zip(keys, labels, strict=True):
            for c, queue in enumerate(self.queues):
                if label != c or c == len(self.queues) - 1:
                    queue.append((key, label))
                    queue.pop(0)


def new_store(classes: int, capacity: int, seed: int = 0) -> KeyStore:
    return KeyStore(LEVELS, classes, capacity, DIM, torch.Generator().manual_seed(seed))


def rows(keys: Tensor) -> list[tuple[float, ...]]:
    """Keys [levels, n, dim], all levels of one in a tuple, sorted: the store knows no order."""
    return sorted(map(tuple, keys.transpose(0, 1).flatten(1).tolist()))


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, int, list[list[int]]]:
    """(classes, K, batches of labels): even, skewed, in runs, of one class or of none; batches of any size."""
    classes = draw(st.integers(1, 5))
    any_label = st.integers(NO_CLASS, classes - 1)
    skewed = st.sampled_from([0] * 9 + list(range(classes)))
    label = draw(st.sampled_from([st.integers(0, classes - 1), any_label, skewed, st.just(draw(any_label))]))
    run = st.tuples(any_label, st.integers(1, 30)).map(lambda run: [run[0]] * run[1])
    batch = draw(st.sampled_from([st.lists(label, min_size=1, max_size=7), st.lists(label, max_size=30), run]))
    return classes, draw(st.integers(1, 12)), draw(st.lists(batch, min_size=1, max_size=25))


@settings(max_examples=100)
@given(streams())
@example((2, 5, [[1] * 5, [0] * 5]))  # 2K keys needed at once
def test_equals_naive_queues_at_every_step(stream: tuple[int, int, list[list[int]]]) -> None:
    classes, capacity, batches = stream
    store = new_store(classes, capacity)
    naive = NaiveQueues(store.keys.clone(), classes)
    draws = torch.Generator().manual_seed(1)
    taken = 0
    for labels in batches:
        keys = torch.randn(len(labels), LEVELS, DIM, generator=draws)
        store.enqueue(keys, torch.tensor(labels, dtype=torch.int64))
        naive.enqueue(keys, labels)
        taken += len(labels)
        assert store.keys.shape[1] == store.slots <= 2 * capacity
        for c, (queue, seen) in enumerate(zip(naive.queues, [*store.visible, store.recent], strict=True)):
            assert rows(store.keys[:, seen]) == rows(torch.stack([key for key, _ in queue], 1))  # all levels alike
            assert sorted(store.slot_labels[seen].tolist()) == sorted(label for _, label in queue)
            assert c == classes or not (store.slot_labels[seen] == c).any()
    health = store.health()
    stored = store.visible.any(0) | store.recent
    assert health["collisions"] == 0 and health["slots"] == store.slots / capacity
    assert health["share_0"] == ((store.slot_labels == 0) & stored).sum() / stored.sum()
    # of all keys ever, start keys first, those of another class or of no class
    ever = [NO_CLASS] * capacity + [label for labels in batches for label in labels]
    places = [[i for i, x in enumerate(ever) if x != c][-capacity:] for c in [*range(classes), None]]
    for c in range(classes):
        assert health[f"negatives_{c}"] == sum(i >= capacity for i in places[c])
    assert health["oldest"] == len(ever) - min(min(queue) for queue in places)
    assert health["start_keys"] == len({i for queue in places for i in queue if i < capacity})


@settings(max_examples=40)
@given(streams(), st.integers(0, 24))
def test_state_resumes_slot_by_slot(stream: tuple[int, int, list[list[int]]], cut: int) -> None:
    classes, capacity, batches = stream
    store, other = new_store(classes, capacity), new_store(classes, capacity, seed=9)
    cut = min(cut, len(batches) - 1)
    draws = torch.Generator().manual_seed(1)
    for step, batch in enumerate(batches):
        if step == cut:
            other.load_state_dict(store.state_dict())
        keys, labels = torch.randn(len(batch), LEVELS, DIM, generator=draws), torch.tensor(batch, dtype=torch.int64)
        store.enqueue(keys, labels)
        if step >= cut:
            other.enqueue(keys, labels)
    assert torch.equal(store.keys, other.keys)
    assert torch.equal(store.visible, other.visible) and torch.equal(store.recent, other.recent)
    assert store.health() == other.health()
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in store.state_dict().items())


def test_a_state_that_does_not_fit_is_refused() -> None:
    store = new_store(3, 8)
    with pytest.raises(ValueError, match="does not fit"):
        store.load_state_dict(KeyStore(1, 3, 8, DIM, torch.Generator()).state_dict())
    state = store.state_dict()
    state["labels"][:4] = 1  # then class 1 has four keys only
    with pytest.raises(ValueError, match="without 8 keys"):
        new_store(3, 8).load_state_dict(state)


@pytest.mark.parametrize("batch", [32, 100])  # K is no multiple of the second
def test_start_keys_and_the_price_of_balanced_classes(batch: int) -> None:
    capacity, classes = 9600, 12
    store = new_store(classes, capacity)
    assert (store.slot_labels == NO_CLASS).all() and store.visible.all() and store.recent.all()
    assert torch.allclose(store.keys.norm(dim=-1), torch.ones(LEVELS, capacity), atol=1e-6)
    assert store.health()["start_keys"] == capacity and store.health()["negatives_0"] == 0
    draws = torch.Generator().manual_seed(1)
    for _ in range(4 * capacity // batch):
        labels = torch.randint(classes, (batch,), generator=draws)
        store.enqueue(torch.randn(batch, LEVELS, DIM, generator=draws), labels)
    assert store.health()["start_keys"] == 0 and store.health()["negatives_0"] == capacity
    assert capacity * classes / (classes - 1) <= store.slots <= 1.15 * capacity


def test_one_class_only_keeps_the_start_keys_as_its_negatives() -> None:
    store = new_store(2, 8)
    start = rows(store.keys)
    for _ in range(9):
        store.enqueue(torch.randn(5, LEVELS, DIM), torch.zeros(5, dtype=torch.int64))
    assert rows(store.keys[:, store.visible[0]]) == start
    assert store.health()["negatives_0"] == 0 and store.health()["start_keys"] == 8


def test_the_worst_stream_needs_two_queues_and_no_more() -> None:
    """K keys of class 1, then ever more of class 0: class 0 needs the former, class 1 the last K of the latter."""
    capacity = 10 * GROWTH
    store = new_store(2, capacity)
    for label in [1] * 10 + [0] * 40:
        store.enqueue(torch.randn(GROWTH, LEVELS, DIM), torch.full((GROWTH,), label))
        assert store.slots <= 2 * capacity
    assert store.slots == 2 * capacity and (store.visible.any(0) | store.recent).all()


def test_without_classes_it_is_a_plain_fifo_in_its_own_room() -> None:
    store = KeyStore(1, 0, 5, DIM, torch.Generator().manual_seed(0))
    keys = torch.randn(8, 1, DIM)
    store.enqueue(keys[:3], torch.tensor([7, NO_CLASS, 0]))
    store.enqueue(keys[3:], torch.tensor([0, 0, 7, 7, 1]))
    assert store.slots == 5 and store.recent.all() and store.visible.shape == (0, 5)
    assert rows(store.keys) == rows(keys[3:].transpose(0, 1))
    # shares of the classes met; a query does meet keys of its class here, so nothing may say that it meets none
    health = store.health()
    assert health.pop("share_0") == health.pop("share_7") == 2 / 5 and health.pop("share_1") == 1 / 5
    assert [name for name, x in health.items() if x and name.startswith("share")] == []
    assert {name for name in health if "share" not in name} == {
        *("negatives", "oldest", "start_keys", "slots", "effective_dim")
    }


def test_labels_out_of_place_are_refused() -> None:
    store = new_store(3, 8)
    keys = torch.randn(2, LEVELS, DIM)
    for labels in ([0, 3], [-2, 0], [0, 1, 2]):
        with pytest.raises(ValueError):
            store.enqueue(keys, torch.tensor(labels))
    with pytest.raises(ValueError):
        store.enqueue(keys, torch.zeros(2, dtype=torch.int64, device="meta"))


def fill(folder: Path) -> None:
    """One of two ranks."""
    rank = int(os.environ["RANK"])
    dist.init_process_group("gloo", timeout=timedelta(seconds=600))
    store = KeyStore(2, 4, 20, 3, torch.Generator().manual_seed(0))
    for keys, labels in torch.load(folder / "stream.pt", weights_only=True):
        half = slice(rank * len(keys) // 2, (rank + 1) * len(keys) // 2)
        gathered = [torch.empty_like(keys[half]) for _ in range(2)], [torch.empty_like(labels[half]) for _ in range(2)]
        dist.all_gather(gathered[0], keys[half].contiguous())
        dist.all_gather(gathered[1], labels[half].contiguous())
        store.enqueue(torch.cat(gathered[0]), torch.cat(gathered[1]))
    torch.save(store.state_dict(), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize(("directions", "spread"), [(1, (0.99, 1.01)), (2, (1.7, 2.01)), (DIM, (0.8 * DIM, DIM))])
def test_health_tells_along_how_many_directions_the_last_keys_spread(
    directions: int, spread: tuple[float, float]
) -> None:
    draws = torch.Generator().manual_seed(0)
    store = new_store(2, 512)
    for _ in range(8):  # older ones, in all directions, are forgotten
        store.enqueue(torch.randn(64, LEVELS, DIM, generator=draws), torch.zeros(64, dtype=torch.int64))
    axes = torch.eye(DIM)[:directions]
    for _ in range(8):
        keys = 3 + torch.randn(64, LEVELS, directions, generator=draws) @ axes
        store.enqueue(keys, torch.zeros(64, dtype=torch.int64))
    assert spread[0] < store.health()["effective_dim"] < spread[1]


def test_two_ranks_hold_the_store_of_one_process(tmp_path: Path) -> None:
    """Each rank embeds its half of the global batch, the second one of class 0 alone; K is no multiple of the batch."""
    draws = torch.Generator().manual_seed(1)
    stream = []
    for _ in range(30):
        labels = torch.cat([torch.randint(4, (3,), generator=draws), torch.zeros(3, dtype=torch.int64)])
        stream.append((torch.randn(6, LEVELS, DIM, generator=draws), labels))
    torch.save(stream, tmp_path / "stream.pt")
    assert [rank.end() for rank in Forked.ranks(tmp_path, fill, tmp_path)] == [(0, "")] * 2
    store = new_store(4, 20)
    for keys, labels in stream:
        store.enqueue(keys, labels)
    for rank in range(2):
        state = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert all(torch.equal(x, state[name]) for name, x in store.state_dict().items())
