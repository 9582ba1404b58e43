"""--stream: every training pair once, the same steps on all ranks, the same fields, damage named or left out."""

import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.conftest import make_shards

from segloc_train.data.data import Batch, Pairs
from segloc_train.data.order import quotas, split
from segloc_train.data.sources import Sources, open_sources
from segloc_train.data.stream import StreamOrder, epoch_runs, stream_batches

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 pairs in shards of 40, 40, 40 and 30."""
    return make_shards(tmp_path_factory.mktemp("uneven") / "pairs", 150, size=32, shard_size=40)


def read(sources: Sources, workers: int = 0, pairs: Pairs | None = None, **how: Any) -> list[Batch]:
    places = split(sources.scans, sources.scan_names).train
    order = StreamOrder(sources, places, 3, 12, **{"epochs": 1, **how})
    got = list(stream_batches(pairs or Pairs(sources, masks=True), order, workers, CPU))
    for one in got:
        if isinstance(one, click.ClickException):
            raise one
    return got  # type: ignore[return-value]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 7), (3, 2), (6, 0)])
def test_every_training_pair_is_seen_once(uneven: Path, world: int, workers: int) -> None:
    """With more workers, or ranks, than shards as well."""
    sources = open_sources([str(uneven)], stream=True)
    parts = split(sources.scans, sources.scan_names)
    ranks = [read(sources, workers, rank=rank, world=world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(parts.train) // 12}
    seen = [place for rank in ranks for batch in rank for place in batch.places.tolist()]
    assert len(set(seen)) == len(seen) == len(parts.train) // 12 * 12
    assert set(seen) <= set(parts.train.tolist())
    assert seen != sorted(seen)


def test_a_stream_is_repeatable_and_gives_what_reading_by_offset_gives(uneven: Path) -> None:
    sources = open_sources([str(uneven)], stream=True)
    pairs = Pairs(sources, masks=True)
    once, again = read(sources, epochs=2), read(sources, epochs=2)
    later = read(sources, epochs=2, start=1)
    assert [b.places.tolist() for b in once] == [b.places.tolist() for b in again]
    assert [b.places.tolist() for b in once[len(later) :]] == [b.places.tolist() for b in later]
    assert once[0].places.tolist() != later[0].places.tolist()
    for batch in once[:3]:
        want = pairs.batch(batch.places.tolist())
        assert torch.equal(batch.labels, want.labels)
        for mine, theirs in ((batch.query, want.query), (batch.key, want.key)):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))  # type: ignore[arg-type]
    device = read(sources, pairs=Pairs(sources, masks=True, decode="device"), epochs=1)
    assert all(torch.equal(a.key.images, b.key.images) for a, b in zip(device, once, strict=False))


@given(st.integers(1, 4), st.integers(0, 5), st.floats(0.05, 20))
def test_weighted_sets_get_their_shares(uneven: Path, shards: Path, epochs: int, seed: int, weight: float) -> None:
    sources = _both(uneven, shards, weight)
    places = split(sources.scans, sources.scan_names).train
    order = StreamOrder(sources, places, seed, 12, epochs)
    seen = np.zeros(len(sources), np.int64)
    for epoch in range(epochs):
        drawn = np.zeros(2, np.int64)
        for run in epoch_runs(order, epoch):
            part = sources.parts[run.part]
            seen[part.first + order.rows(part)[run.first : run.stop]] += 1
            drawn[part.set] += run.stop - run.first
        assert drawn.tolist() == quotas(len(places), sources.weights)
    assert not np.delete(seen, places).any()
    for own in np.split(places, np.searchsorted(places, sources.starts[1:])):
        assert seen[own].max() - seen[own].min() <= 1


_opened: dict[float, Sources] = {}


def _both(uneven: Path, shards: Path, weight: float) -> Sources:
    """Two sets, opened once."""
    if 0 not in _opened:
        large = make_shards(uneven.parent / "large", 60, size=32, seed=2, shard_size=25)
        _opened[0] = open_sources([str(uneven), str(large)], [1, 1])
    _opened[0].weights = (1.0, weight)
    return _opened[0]


def rewrite(path: Path, change: Any) -> None:
    """The tar with other members, padded to the old size, as the sidecar and the manifest say it has."""
    size = path.stat().st_size
    with tarfile.open(path) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for place, (info, data) in enumerate(members):
            for new, content in change(place, info, data):
                tar.addfile(new, io.BytesIO(content))
    path.write_bytes(file.getvalue()[:size].ljust(size, b"\0"))


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    return info


def first(*other: tuple[tarfile.TarInfo, bytes]) -> Any:
    return lambda place, info, data: [*other, (info, data)] if place == 0 else [(info, data)]


HOSTILE = {
    "path": first((member("../../escaped.json", 2), b"{}")),
    "absolute": first((member("/tmp/escaped", 2), b"{}")),
    "link": first((member("000000000040.json", 0, tarfile.SYMTYPE), b"")),
    "sparse": first((member("000000000040.json", 2, tarfile.GNUTYPE_SPARSE), b"{}")),
    "another sample": lambda place, info, data: [] if place < 3 else [(info, data)],
    "cut": lambda place, info, data: [(info, data)] if place < 9 else [],
    "json bomb": lambda place, info, data: [(member(info.name, 1 << 33), b"")] if place == 3 else [(info, data)],
    "bad json": lambda place, info, data: [(info, b"[" * info.size if place == 3 else data)],
    "bad picture": lambda place, info, data: [(info, data[:300].ljust(info.size) if place == 4 else data)],
    "no picture": lambda place, info, data: [(info, b"x" * info.size if place == 5 else data)],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_shard_is_one_line_or_left_out(uneven: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(uneven, tmp_path / "set")
    try:
        rewrite(folder / "segloc-00000001.tar", HOSTILE[kind])
    except OSError:  # tarfile finds the promised bytes missing
        data = bytearray((folder / "segloc-00000001.tar").read_bytes())
        data[0:512] = member("000000000040.json", 1 << 32).tobuf(tarfile.USTAR_FORMAT)
        (folder / "segloc-00000001.tar").write_bytes(data)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(click.ClickException) as caught:
        read(open_sources([str(folder)], stream=True))
    assert "segloc-00000001.tar" in caught.value.message and "\n" not in caught.value.message
    assert caught.value.message.endswith(f"; run segloc-synth verify {folder} --repair")
    lenient = open_sources([str(folder)], on_bad_shard="skip", stream=True)
    for workers in (0, 2):
        batches = read(lenient, workers)
        assert len(batches) == len(split(lenient.scans, lenient.scan_names).train) // 12
        assert any("segloc-00000001.tar" in line for batch in batches for line in batch.problems)
        assert {len(batch.labels) for batch in batches} == {12}
    assert set(tmp_path.rglob("*")) == before
