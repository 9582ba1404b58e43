"""What is seen when: complete, repeatable, cut over ranks, skippable; and no scan on both sides."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segloc_train.data.order import HELD_OUT_MAX, BatchOrder, Places, cut, derived_seed, epoch_places, quotas, split


def epoch_order(seed: int, epoch: int, count: int, batch: int, rank: int = 0, world: int = 1) -> Places:
    """`cut` of a permutation of 0..count-1 that is a function of (seed, epoch)."""
    return cut(epoch_places([np.arange(count)], (), seed, epoch), batch, rank, world)


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


@given(
    count=st.integers(20, 200),
    share=st.integers(1, 7),
    epochs=st.integers(1, 4),
    part=st.floats(0, 1),
    world=st.integers(1, 2),
    weighted=st.booleans(),
)
def test_resume_skips_in_the_order_and_ranks_make_up_the_batches(
    count: int, share: int, epochs: int, part: float, world: int, weighted: bool
) -> None:
    places, batch = np.arange(1000, 1000 + count), share * world
    sets = {"starts": (0, 1007), "weights": (1.0, 2.5)} if weighted else {}
    whole = list(BatchOrder(places, 3, batch, epochs, **sets))  # type: ignore[arg-type]
    assert len(whole) == epochs * (count // batch) == len(BatchOrder(places, 3, batch, epochs))
    start = round(part * len(whole))
    ranks = [list(BatchOrder(places, 3, batch, epochs, start, rank, world, **sets)) for rank in range(world)]  # type: ignore[arg-type]
    assert [[place for row in rows for place in row] for rows in zip(*ranks, strict=True)] == whole[start:]


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    weights=st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
    epochs=st.integers(1, 6),
)
def test_weighted_sets_get_their_shares_and_show_their_pairs_equally_often(
    sizes: list[int], weights: list[float], epochs: int
) -> None:
    ends = np.cumsum(sizes)
    parts = np.split(np.arange(ends[-1]), ends[:-1])
    weights = weights[: len(sizes)]
    seen: Counter[int] = Counter()
    for epoch in range(epochs):
        order = epoch_places(parts, weights, 5, epoch).tolist()
        assert len(order) == ends[-1]
        shares = [sum(place in part for place in order) for part in map(set, map(np.ndarray.tolist, parts))]
        assert shares == quotas(int(ends[-1]), weights)
        exact = [ends[-1] * weight / sum(weights) for weight in weights]
        assert all(abs(got - want) <= 1 for got, want in zip(shares, exact, strict=True))
        seen.update(order)
    for part in parts:
        counts = [seen[place] for place in part.tolist()]
        assert max(counts) - min(counts) <= 1


pairs = st.integers(1, 60).flatmap(
    lambda scans: st.lists(st.tuples(st.integers(0, scans - 1), st.integers(0, scans - 1)), max_size=400)
)


@given(pairs, st.booleans())
def test_no_scan_is_on_both_sides(drawn: list[tuple[int, int]], instance: bool) -> None:
    scans = np.array(drawn, np.int32).reshape(-1, 2)
    if instance:  # both segments of a pair from one scan, as usual
        scans[:, 1] = scans[:, 0]
    names = [f"train/xray_{number:05d}" for number in range(60)]
    found = split(scans, names)
    train, held_out = set(found.train.tolist()), set(found.held_out.tolist())
    assert not train & held_out and train | held_out <= set(range(len(scans)))
    assert np.array_equal(found.train, np.unique(found.train))
    assert np.array_equal(found.held_out, np.unique(found.held_out))
    assert len(found.train) >= 0.75 * len(scans) and len(found.held_out) <= min(HELD_OUT_MAX, len(scans) / 4)
    if found.warning:  # only where nothing else is possible
        assert train | held_out == set(range(len(scans))) and len(held_out) == min(64, len(scans) // 4)
        own = [((scans == number).any(1).sum(), (scans == number).all(1).sum()) for number in range(60)]
        assert not instance or not any(0 < shown <= len(scans) // 4 for shown, _ in own)
    else:
        assert len(held_out) > 0
        assert not set(scans[found.train].ravel().tolist()) & set(scans[found.held_out].ravel().tolist())
        out = [names.index(name) for name in found.scans]
        assert not np.isin(scans[found.train], out).any() and np.isin(scans[found.held_out], out).all()


def test_the_choice_of_scans_depends_on_their_names_alone() -> None:
    rng = np.random.default_rng(0)
    names = [f"train/xray_{number:05d}" for number in range(2000)]
    few, many = (np.repeat(rng.integers(0, 2000, (n, 1)), 2, 1).astype(np.int32) for n in (20_000, 50_000))
    assert set(split(few, names).scans) == set(split(many, names).scans)
    assert 0.04 < len(split(many, names).scans) / 2000 < 0.06
    assert len(split(many, names).held_out) == HELD_OUT_MAX
    order = rng.permutation(2000)  # of the list of names
    place = np.argsort(order).astype(np.int32)
    again = split(place[many], [names[number] for number in order])
    assert np.array_equal(again.train, split(many, names).train)
    half = split(many, names[:1000] + [f"other/{name}" for name in names[1000:]])
    assert set(half.scans) & set(names[:1000]) == set(split(many, names).scans) & set(names[:1000])


@pytest.mark.parametrize(("counts", "by_scan"), [((10, 90), True), ((50, 50), False), ((100,), False)])
def test_few_scans(counts: tuple[int, ...], by_scan: bool) -> None:
    """A scan is held out where it holds at most a quarter of the pairs."""
    scans = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[:, None].repeat(2, 1)
    found = split(scans, ["a", "b"])
    assert (found.scans == ("a",)) == by_scan == (not found.warning)
    assert len(found.held_out) == (10 if by_scan else 25)
