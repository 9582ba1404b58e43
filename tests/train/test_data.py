"""Batches: what lies in the shards arrives, damage is named or stood in for, and hostile files harm nothing."""

import io
import json
import logging
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from tests.train.conftest import CLASSES, pair
from torchvision.io import ImageReadMode, decode_jpeg

from segloc_synth.shards.format import Sample, config_hash
from segloc_synth.shards.manifest import Layout, shard_path, write_manifest
from segloc_synth.shards.writer import write_shard
from segloc_train.data import loader
from segloc_train.data.data import Batch, Pairs
from segloc_train.data.loader import batches
from segloc_train.data.raw import jpeg_size
from segloc_train.data.sources import open_sources
from segloc_train.run.loop import next_batch

CPU = torch.device("cpu")
Change = Callable[[Sample], Sample]


def altered(folder: Path, changes: dict[int, Change], count: int = 24) -> Path:
    """A build with consistent sidecars, some of whose samples a stranger changed."""
    folder.mkdir()
    config = {"size": 64}
    samples = [pair(0, index, 64, 4) for index in range(count)]
    samples = [changes.get(index, lambda same: same)(sample) for index, sample in enumerate(samples)]
    write_shard(shard_path(folder, 0), samples, config_hash(config), {})
    classes = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    head = {"config": config, "config_hash": config_hash(config), "sources": {}, "classes": classes}
    write_manifest(folder, head, Layout(count, count))
    return folder


def query(data: bytes) -> Change:
    return lambda sample: Sample(sample.meta, sample.key, data)


def record(**fields: Any) -> Change:
    return lambda sample: Sample({**sample.meta, "key": {**sample.meta["key"], **fields}}, sample.key, sample.query)


def raw(data: bytes) -> Change:
    """Other bytes in place of the JSON, which the writer would refuse."""

    class Text(dict[str, Any]):
        pass

    def change(sample: Sample) -> Sample:
        meta = Text(sample.meta)
        meta.raw = data  # type: ignore[attr-defined]
        return Sample(meta, sample.key, sample.query)

    return change


@pytest.fixture(autouse=True)
def _write_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    from segloc_synth.shards import writer

    written = writer.json_bytes
    monkeypatch.setattr(
        writer, "json_bytes", lambda value, indent=1: getattr(value, "raw", None) or written(value, indent)
    )


def jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (9, 99, 199)).save(file, "jpeg")
    return file.getvalue()


def bomb() -> bytes:
    """A JPEG file of a few hundred bytes whose header promises 10,000 x 10,000 pixels."""
    data = bytearray(jpeg(64, 64))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (10_000).to_bytes(2, "big") * 2
    return bytes(data)


GOOD = jpeg(64, 64)
HOSTILE: dict[str, tuple[Change, str]] = {
    "100 megapixels": (query(bomb()), "query.jpg: is 10000x10000 pixels, the manifest says 64x64"),
    "other size": (query(jpeg(65, 64)), "query.jpg: is 65x64 pixels"),
    "a size hidden behind another frame": (
        query(GOOD[:2] + b"\xff\xc3\x00\x0b\x08\x00\x40\x00\x40\x01" + GOOD[2:]),
        "is no JPEG",
    ),
    "no JPEG": (query(b"GIF89a" + bytes(99)), "query.jpg: is no JPEG"),
    "empty": (query(b""), "query.jpg: is no JPEG"),
    "cut": (lambda s: Sample(s.meta, s.key, s.query[: len(s.query) // 2]), "query.jpg: not a readable JPEG"),
    "long": (query(GOOD + bytes(3_000_000)), "query.jpg: is 300"),
    "json bomb": (raw(b'{"a": "' + b"x" * 2_000_000 + b'"}'), "000000000005.json is damaged"),
    "deep json": (raw(b"[" * 500_000), "000000000005.json is damaged"),
    "giant number": (raw(b'{"index": ' + b"9" * 100_000 + b"}"), "000000000005.json is damaged"),
    "no json": (raw(b"\x00\xff"), "000000000005.json is damaged"),
    "a list": (raw(b"[1]"), "000000000005.json is damaged"),
    "no box": (record(box=None), "key has no box in its picture"),
    "box outside": (record(box=[0, 0, 65, 9]), "key has no box in its picture"),
    "huge box": (record(box=[0, 0, 1e308, 10**400]), "key has no box"),
    "box of NaN": (raw(b'{"index": 5, "query": {"box": [NaN,0,9,9]}}'), "query has no box"),
    "mask of another size": (record(mask={"size": [65, 64], "counts": "0"}), "key has no mask of its picture"),
    "mask that ends early": (record(mask={"size": [64, 64], "counts": "00"}), "the mask of key is damaged"),
    "mask that never ends": (record(mask={"size": [64, 64], "counts": "o" * 999}), "the mask of key is damaged"),
    "huge mask": (record(mask={"size": [64, 64], "counts": "_____0"}), "the mask of key is damaged"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("decode", ["workers", "device"])
def test_a_hostile_pair_is_one_line_or_stood_in_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, decode: Any
) -> None:
    change, told = HOSTILE[kind]
    folder = altered(tmp_path / "set", {5: change, 9: change})
    sources = open_sources([str(folder)])
    order = [[3, 5, 7, 1], [9, 5, 2, 0]]
    first = next(batches(Pairs(sources, True, decode), order, 0, CPU))
    assert isinstance(first, click.ClickException) and told in first.message, first
    assert "segloc-00000000.tar" in first.message and "000000000005" in first.message and "\n" not in first.message
    assert first.message.endswith(f"; run segloc-synth verify {folder} --repair") and ".cpp" not in first.message
    lenient = open_sources([str(folder)], on_bad_shard="skip")
    pairs = Pairs(lenient, True, decode, np.array([9, 20, 21, 22]))
    with caplog.at_level(logging.WARNING, "segloc"):
        seen = [batch for batch in batches(pairs, order, 0, CPU) if isinstance(batch, Batch)]
    places = [batch.places.tolist() for batch in seen]
    good = {0, 1, 2, 3, 7, 20, 21, 22}
    assert set(sum(places, [])) <= good and places[0][1] == places[1][1] in (20, 21, 22)  # noqa: RUF017
    assert places == [batch.places.tolist() for batch in batches(pairs, order, 1, CPU)]  # type: ignore[union-attr]
    assert told in caplog.records[0].getMessage()
    for batch in seen:
        assert torch.equal(batch.labels, torch.from_numpy(sources.labels[batch.places.numpy()]))


def test_a_tar_with_path_tricks_is_never_unpacked(tmp_path: Path) -> None:
    """Samples are read by offset: names and links in a tar mean nothing."""
    folder = altered(tmp_path / "set", {})
    path = shard_path(folder, 0)
    data = bytearray(path.read_bytes())
    side = json.loads(path.with_suffix(".json").read_text())
    for row, name in zip(side["offsets"], ("../../escaped", "/tmp/escaped", "escaped"), strict=False):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = (tarfile.SYMTYPE, "/etc/passwd") if name == "escaped" else (tarfile.REGTYPE, "")
        data[row[0] - 512 : row[0]] = info.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(data)
    before = {one: one.stat().st_size for one in tmp_path.rglob("*")}
    (batch,) = batches(Pairs(open_sources([str(folder)])), [[0, 1, 2, 3]], 0, CPU)
    assert isinstance(batch, Batch) and len(batch.labels) == 4
    assert {one: one.stat().st_size for one in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("decode", ["workers", "device"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_what_the_shards_hold(shards: Path, decode: Any, workers: int) -> None:
    sources = open_sources([str(shards)])
    order = np.random.default_rng(0).permutation(160).reshape(-1, 20).tolist()
    for row, batch in zip(order, batches(Pairs(sources, True, decode), order, workers, CPU), strict=True):
        assert isinstance(batch, Batch)
        assert batch.places.tolist() == row and batch.labels.tolist() == sources.labels[row].tolist()
        assert batch.problems == ()
        for slot, place in enumerate(row):
            sample = sources.read(place)
            for view, name in ((batch.query, "query"), (batch.key, "key")):
                data = torch.frombuffer(bytearray(getattr(sample, name)), dtype=torch.uint8)
                assert torch.equal(view.images[slot], decode_jpeg(data, ImageReadMode.RGB))
                meta = sample.meta[name]
                x, y, w, h = meta["box"]
                assert view.boxes[slot].tolist() == [x, y, x + w, y + h]
                assert view.masks is not None
                rle = {"size": meta["mask"]["size"], "counts": meta["mask"]["counts"].encode()}
                assert np.array_equal(view.masks[slot].numpy(), coco_mask.decode(rle))
    assert batch.query.images.dtype == torch.uint8 and batch.query.boxes.dtype == torch.float32
    assert batch.labels.dtype == batch.places.dtype == torch.int64


def test_a_device_that_cannot_decode_is_told_once(
    shards: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("nvjpeg: no driver\nat line 3")

    monkeypatch.setattr(loader, "decode_jpeg", fail)
    pairs = Pairs(open_sources([str(shards)]), decode="device")
    read = list(batches(pairs, [[0, 1], [2, 3]], 0, CPU))
    assert [batch.places.tolist() for batch in read] == [[0, 1], [2, 3]]
    assert [r.getMessage() for r in caplog.records if "cannot decode" in r.getMessage()] == [
        "Warning: --decode device: cpu cannot decode what the CPU can (nvjpeg: no driver); give --decode workers"
    ]


@pytest.mark.parametrize("sign", ["shared memory(shm)", "something"])
def test_what_went_wrong_in_a_worker_is_told(sign: str) -> None:
    def stream() -> Iterator[Any]:
        raise RuntimeError(f"Caught RuntimeError in DataLoader worker process 0.\nTraceback\nRuntimeError: no {sign}\n")
        yield

    with pytest.raises(click.ClickException) as told:
        next_batch(stream())
    assert told.value.message.startswith(f"reading the shards failed: RuntimeError: no {sign}")
    assert ("--workers 0" in told.value.message) is ("shared" in sign)


def test_memory_is_used_again_only_when_nobody_refers_to_it(shards: Path) -> None:
    pairs = Pairs(open_sources([str(shards)]))
    first = pairs.batch([0, 1])
    kept, copy = first.query.images[1:], first.query.images[1:].clone()
    del first
    for place in range(2, 40, 2):
        pairs.batch([place, place + 1])
    assert torch.equal(kept, copy)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_a_header_is_read_as_the_decoder_reads_it(noise: bytes, at: int) -> None:
    """Whatever the bytes: what decodes has the size that was read before, unless nothing was read."""
    data = GOOD[:at] + noise + GOOD[at + len(noise) :]
    size = jpeg_size(data)
    if size is None or size[0] * size[1] > 1 << 20:
        return
    try:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    except RuntimeError:
        return
    assert (image.shape[2], image.shape[1]) == size


@pytest.mark.parametrize("options", [[], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]])
def test_sizes_of_ordinary_files(options: list[int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    assert jpeg_size(cv2.imencode(".jpg", picture, options)[1].tobytes()) == (47, 33)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", exif=Image.Exif(), comment=b"\xff\xc0" * 9, icc_profile=b"x" * 70_000)
    assert jpeg_size(file.getvalue()) == (47, 33)
