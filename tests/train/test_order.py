"""What is seen when: complete, repeatable, cut over ranks, skippable."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from segloc_train.order import BatchOrder, derived_seed, epoch_order, held_out_count, split


@given(
    seed=st.integers(0, 99),
    epoch=st.integers(0, 99),
    count=st.integers(1, 300),
    share=st.integers(1, 5),
    world=st.integers(1, 8),
)
def test_ranks_share_an_epoch_evenly_and_completely(seed: int, epoch: int, count: int, share: int, world: int) -> None:
    batch = share * world
    ranks = [epoch_order(seed, epoch, count, batch, rank, world) for rank in range(world)]
    assert {r.shape for r in ranks} == {(count // batch, share)}
    seen = np.concatenate([r.ravel() for r in ranks]).tolist()
    assert len(set(seen)) == len(seen) == count // batch * batch
    assert set(seen) <= set(range(count))
    # a global batch is the same, however many ranks share it
    alone = epoch_order(seed, epoch, count, batch)
    assert np.array_equal(np.concatenate(ranks, 1), alone)


def test_order_differs_between_epochs_and_seeds() -> None:
    orders = {epoch_order(s, e, 50, 10).tobytes() for s in range(5) for e in range(5)}
    assert len(orders) == 25
    assert len({derived_seed(0, a, b) for a in range(10) for b in range(10)}) == 100


@given(count=st.integers(20, 200), batch=st.integers(1, 15), epochs=st.integers(1, 4), part=st.floats(0, 1))
def test_resume_skips_in_the_order(count: int, batch: int, epochs: int, part: float) -> None:
    places = np.arange(1000, 1000 + count)
    whole = list(BatchOrder(places, 3, batch, epochs))
    assert len(whole) == epochs * (count // batch) == len(BatchOrder(places, 3, batch, epochs))
    start = round(part * len(whole))
    assert list(BatchOrder(places, 3, batch, epochs, start)) == whole[start:]


@given(st.integers(0, 30_000))
def test_held_out_pairs_are_apart(count: int) -> None:
    train, held_out = split(count)
    assert len(held_out) == held_out_count(count) <= min(512, count / 4)
    assert len(held_out) >= 64 or count < 256 or len(held_out) == count // 4
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(count))
