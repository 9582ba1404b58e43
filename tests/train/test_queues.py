"""The key store against one queue per class, written from the definition."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segloc_train.queues import NO_CLASS, KeyStore

LEVELS, DIM = 2, 3


class NaiveQueues:
    """Queue of class c: the last K keys whose class is not c; the start keys are the oldest, of no class."""

    def __init__(self, start: Tensor, classes: int, capacity: int) -> None:
        self.capacity = capacity
        self.queues = [[start[:, i] for i in range(capacity)] for _ in range(classes)]

    def enqueue(self, keys: Tensor, labels: list[int]) -> None:
        for key, label in zip(keys, labels, strict=True):
            for c, queue in enumerate(self.queues):
                if label != c:
                    queue.append(key)
                    queue.pop(0)


@st.composite
def streams(draw: st.DrawFn) -> tuple[int, int, list[list[int]]]:
    """(classes, K, batches of labels): even, skewed, in runs, or of one class; batches of any size."""
    classes = draw(st.integers(1, 5))
    any_label = st.integers(0, classes - 1)
    skewed = st.sampled_from([0] * 9 + list(range(classes)))
    label = draw(st.sampled_from([any_label, skewed, st.just(draw(any_label))]))
    batches = st.lists(st.lists(label, min_size=1, max_size=7), min_size=1, max_size=25)
    return classes, draw(st.integers(1, 12)), draw(batches)


@settings(max_examples=300, deadline=None)
@given(streams())
def test_equals_naive_queues_at_every_step(stream: tuple[int, int, list[list[int]]]) -> None:
    classes, capacity, batches = stream
    store = KeyStore(LEVELS, classes, capacity, DIM, torch.Generator().manual_seed(0))
    naive = NaiveQueues(store.keys.clone(), classes, capacity)
    draws = torch.Generator().manual_seed(1)
    largest = max(map(len, batches))
    for labels in batches:
        keys = torch.randn(len(labels), LEVELS, DIM, generator=draws)
        store.enqueue(keys, torch.tensor(labels))
        naive.enqueue(keys, labels)
        assert store.count <= 2 * capacity + largest
        visible, bias = store.visible(), store.bias()
        assert ((bias == 0) == visible).all() and (bias[~visible] == -torch.inf).all()
        for c, queue in enumerate(naive.queues):
            # all levels alike, oldest first
            assert torch.equal(store.keys[:, visible[c]], torch.stack(queue, 1))
            assert not (store.labels[visible[c]] == c).any()


@settings(max_examples=50, deadline=None)
@given(streams(), st.integers(0, 24))
def test_state_resumes_exactly(stream: tuple[int, int, list[list[int]]], cut: int) -> None:
    classes, capacity, batches = stream
    store = KeyStore(LEVELS, classes, capacity, DIM, torch.Generator().manual_seed(0))
    other = KeyStore(LEVELS, classes, capacity, DIM, torch.Generator().manual_seed(9))
    draws = torch.Generator().manual_seed(1)
    for step, labels in enumerate(batches):
        if step == min(cut, len(batches) - 1):
            other.load_state_dict(store.state_dict())
        keys = torch.randn(len(labels), LEVELS, DIM, generator=draws)
        store.enqueue(keys, torch.tensor(labels))
        if step >= min(cut, len(batches) - 1):
            other.enqueue(keys, torch.tensor(labels))
    for c in range(classes):
        mine, theirs = store.visible()[c], other.visible()[c]
        assert torch.equal(store.keys[:, mine], other.keys[:, theirs])


def test_start_keys_and_the_price_of_balanced_classes() -> None:
    capacity, classes, batch = 960, 12, 32
    store = KeyStore(LEVELS, classes, capacity, DIM, torch.Generator().manual_seed(0))
    assert (store.labels == NO_CLASS).all() and store.visible().all()
    assert torch.allclose(store.keys.norm(dim=-1), torch.ones(LEVELS, capacity), atol=1e-6)
    draws = torch.Generator().manual_seed(1)
    largest = 0
    for _ in range(100):
        labels = torch.randint(classes, (batch,), generator=draws)
        store.enqueue(torch.randn(batch, LEVELS, DIM, generator=draws), labels)
        largest = max(largest, store.count)
    assert (store.labels != NO_CLASS).all()
    assert capacity * classes / (classes - 1) <= largest < 1.3 * capacity


def test_keys_without_class_are_a_plain_fifo() -> None:
    store = KeyStore(1, 1, 5, DIM, torch.Generator().manual_seed(0))
    keys = torch.randn(8, 1, DIM)
    store.enqueue(keys, torch.full((8,), NO_CLASS))
    assert torch.equal(store.keys[0, store.visible()[0]], keys[3:, 0])
