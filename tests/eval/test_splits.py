"""Label sets are nested and stratified; near-identical scans stay on one side of the cut."""

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segloc_eval.splits import SAME, difference_hash, label_order, split_apart

CLASS_SETS = st.lists(st.sets(st.integers(1, 4), min_size=1), min_size=1, max_size=60)


@given(classes=CLASS_SETS, seed=st.integers(0, 9))
def test_order_is_a_permutation_and_reproducible(classes: list[set[int]], seed: int) -> None:
    order = label_order(classes, seed)
    assert sorted(order) == list(range(len(classes)))
    assert order == label_order(classes, seed)


@given(seed=st.integers(0, 1000), share=st.integers(2, 8))
def test_prefixes_are_stratified(seed: int, share: int) -> None:
    """With one class a scan, every prefix holds each class in its share, to within one scan."""
    classes = [{1}] * 10 * share + [{2}] * 10 + [{3}] * 20
    order = label_order(classes, seed)
    for length in (1, 7, 20, len(classes) // 2, len(classes)):
        taken = [next(iter(classes[i])) for i in order[:length]]
        for c, total in ((1, 10 * share), (2, 10), (3, 20)):
            assert abs(taken.count(c) - length * total / len(classes)) <= 1.5
    assert order != label_order(classes, seed + 1)


@settings(max_examples=50)
@given(
    roots=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=12, unique=True),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_near_identical_hashes_stay_together(roots: list[int], seed: int, data: st.DataObject) -> None:
    copies = [
        (group, root ^ sum(1 << bit for bit in data.draw(st.sets(st.integers(0, 63), max_size=SAME // 2))))
        for group, root in enumerate(roots)
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    hashes = np.array([h for _, h in copies], np.uint64)
    first, second = split_apart(hashes, 0.6, seed)
    assert sorted(first + second) == list(range(len(copies)))
    assert not {copies[i][0] for i in first} & {copies[i][0] for i in second}
    near = np.bitwise_count(hashes[first][:, None] ^ hashes[second][None])
    assert (near > SAME).all()


def test_the_share_is_kept_where_all_scans_differ() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)
    first, second = split_apart(hashes, 0.6, 3)
    assert len(first) == 60 and len(second) == 40
    assert split_apart(hashes, 0.6, 4)[0] != first


def test_hash_survives_compression_and_tells_scans_apart() -> None:
    rng = np.random.default_rng(0)
    scans = [
        np.asarray(Image.fromarray(rng.integers(0, 255, (6, 7, 3), np.uint8)).resize((220, 200))) for _ in range(20)
    ]
    hashes = [difference_hash(scan) for scan in scans]
    for scan, original in zip(scans, hashes, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(scan).resize((180, 160)).save(buffer, "JPEG", quality=60)
        again = difference_hash(np.asarray(Image.open(buffer)))
        assert (again ^ original).bit_count() <= SAME
    pairs = [(a ^ b).bit_count() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(pairs) > SAME
