"""What --shards may name, near and far, in order and damaged; nothing of a hostile set is believed."""

import json
import logging
import multiprocessing
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from tests.train.conftest import USES, make_shards

from segloc_synth.shards.format import ShardReader
from segloc_train.cli import command
from segloc_train.config import Config
from segloc_train.data.cache import ShardCache, _files
from segloc_train.data.data import Pairs
from segloc_train.data.loader import batches
from segloc_train.data.order import split
from segloc_train.data.sources import open_sources
from segloc_train.dist import ALONE
from segloc_train.run.feed import Feed, open_new


@pytest.fixture(scope="module")
def bucket(s3: Any, shards: Path) -> str:
    """URL of the shards in a bucket."""
    s3.create_bucket(Bucket="shards")
    for path in shards.iterdir():
        s3.upload_file(str(path), "shards", f"deep/run/{path.name}")
    return "s3://shards/deep/run"


class Quiet(SimpleHTTPRequestHandler):
    """Whole files only, as the plainest web server gives them."""

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def http(shards: Path) -> Iterator[str]:
    """URL of the shards on a web server on loopback."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(shards)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGLOC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def test_a_folder_a_pattern_and_several_sets(shards: Path, tmp_path: Path) -> None:
    whole = open_sources([str(shards)])
    assert len(whole) == 160 and whole.image_size == 64 and [c["name"] for c in whole.classes][-1] == "ring"
    assert whole.scan_names[:2] == ["train/scan_00000", "train/scan_00001"]
    assert np.array_equal(whole.scans, np.repeat(np.arange(160) // 4, 2).reshape(-1, 2))
    second = open_sources([f"{shards}/segloc-{{00000001..00000001}}.tar"])
    assert len(second) == 60 and second.name(3) == f"{shards}/segloc-00000001.tar: 000000000103"
    assert second.read(3) == whole.read(103) == ShardReader(shards)[103]
    other = make_shards(tmp_path / "other", 50, seed=7)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["classes"] = [{"id": 5 - one["id"], "name": one["name"].upper()} for one in manifest["classes"]][::-1]
    manifest["classes"][0]["name"] = "spanner"
    (other / "manifest.json").write_text(json.dumps(manifest))
    both = open_sources([str(shards), str(other)], [1, 2])
    assert [c["name"] for c in both.classes] == ["disc", "square", "triangle", "ring", "spanner"]
    assert (both.starts, both.weights, len(both)) == ([0, 160], (1, 2), 210)
    metas = [both.read(place).meta["class_id"] for place in range(160, 210)]
    assert both.labels[160:].tolist() == [_position(one) for one in metas]
    assert both.scan_names == whole.scan_names  # of both sets, by name
    assert len({one.identity for one in (whole, second, both, open_sources([str(shards), str(other)]))}) == 4
    assert open_sources([str(shards)]).identity == whole.identity


def _position(class_id: int) -> int:
    """Where the other set's manifest puts a class id: its names are in reverse, the first unknown."""
    names = {4: "disc", 3: "square", 2: "triangle", 1: "spanner"}
    return ["disc", "square", "triangle", "ring", "spanner"].index(names[class_id])


@pytest.mark.parametrize(
    ("paths", "weights", "told"),
    [
        (["nowhere"], (), "nowhere: no such folder of shards"),
        (["{shards}/segloc-{00000000..2.tar"], (), "its braces do not match"),
        (["{shards}/segloc-0000000{0,7}.tar"], (), "manifest.json: lists no shard segloc-00000007.tar"),
        (["{shards}"], (1, 2), "1 sets need as many positive weights"),
        (["{shards}"], (0,), "1 sets need as many positive weights"),
        (["nonsense://x/y"], (), "nonsense://x/y: "),
        (["http://127.0.0.1:9/x"], (), "http://127.0.0.1:9/x: Connect call failed"),
        (["{shards}", "{larger}"], (), "pictures differ in size"),
    ],
)
def test_mistakes_are_one_line(
    shards: Path, tmp_path: Path, paths: list[str], weights: tuple[float, ...], told: str
) -> None:
    larger = make_shards(tmp_path / "larger", 4, size=96)
    named = [path.replace("{shards}", str(shards)).replace("{larger}", str(larger)) for path in paths]
    with pytest.raises(click.ClickException) as caught:
        open_sources(named, weights)
    assert told in caught.value.message and "\n" not in caught.value.message


def test_a_remote_set_is_read_through_a_bounded_cache(bucket: str, http: str, shards: Path, cache: Path) -> None:
    near = ShardReader(shards)
    sizes = [(shards / f"segloc-0000000{n}.tar").stat().st_size for n in range(2)]
    for url in (bucket, http):
        far = open_sources([url], cache_limit=max(sizes) + 1)  # room for one of the two
        places = [0, 159, 80, 101]
        assert [far.read(place) for place in places] == [near[place] for place in places]
        there = list(cache.glob("*.tar"))
        assert len(there) == 1 and there[0].stat().st_size in sizes
        assert far.name(101) == f"{url}/segloc-00000001.tar: 000000000101"
    with pytest.raises(click.ClickException, match="more than the cache may hold"):
        open_sources([bucket + "/segloc-00000000.tar"], cache_limit=99).read(0)
    with pytest.raises(click.ClickException, match="no manifest"):
        open_sources([http + "/nothing"])


def test_workers_read_a_remote_set(bucket: str, shards: Path, cache: Path) -> None:
    """A store's connections do not outlive a fork; each worker makes its own."""
    far = open_sources([bucket])
    far.read(0)
    order = [[place, 159 - place] for place in range(40)]
    got = list(batches(Pairs(far), order, 2, torch.device("cpu")))
    want = list(batches(Pairs(open_sources([str(shards)])), order, 0, torch.device("cpu")))
    assert all(torch.equal(a.query.images, b.query.images) for a, b in zip(got, want, strict=True))  # type: ignore[union-attr]


def _fetch(cache: Path, limit: int, shards: Path, entries: list[dict[str, Any]], seed: int) -> None:
    shared = ShardCache(cache, limit)
    for number in np.random.default_rng(seed).integers(0, len(entries), 30).tolist():
        with open(shared.open(shards / entries[number]["url"], entries[number]), "rb") as file:  # noqa: PTH123
            assert file.read() == (shards / entries[number]["url"]).read_bytes()
        sizes = [one.st_size for path, one in _files(cache) if path.suffix == ".tar"]  # others delete meanwhile
        assert sum(sizes) <= limit + max(e["filesize"] for e in entries)


def test_many_processes_share_a_cache(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "set", 60, size=32, shard_size=10)
    entries = json.loads((shards / "manifest.json").read_text())["shardlist"]
    limit = 3 * max(entry["filesize"] for entry in entries)
    processes = [
        multiprocessing.get_context("fork").Process(target=_fetch, args=(tmp_path / "c", limit, shards, entries, seed))
        for seed in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    left = [path.name for path in (tmp_path / "c").iterdir() if not path.name.endswith((".tar", ".lock"))]
    assert left == []


def test_a_remote_shard_that_was_altered_is_not_kept(shards: Path, tmp_path: Path) -> None:
    entry = json.loads((shards / "manifest.json").read_text())["shardlist"][0]
    bad = tmp_path / "bad.tar"
    for change in (lambda data: data[:-1] + b"x", lambda data: data[:-1], lambda data: data + b"x"):
        bad.write_bytes(change((shards / entry["url"]).read_bytes()))
        with pytest.raises(click.ClickException, match="its bytes are not those of the manifest"):
            ShardCache(tmp_path / "c", 10**9).open(bad, entry)
        assert not list((tmp_path / "c").glob("*.tar")) and not (tmp_path / "c" / ".tmp").exists()
    with pytest.raises(click.ClickException, match="is missing"):
        ShardCache(tmp_path / "c", 10**9).open(tmp_path / "nothing.tar", entry)


def test_a_path_is_told_once(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> Callable[..., None]:
        def fail(*_: Any, **__: Any) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        return fail

    sources, tar = open_sources([str(shards)]), shards / "segloc-00000000.tar"
    with monkeypatch.context() as patch:
        patch.setattr(ShardReader, "__getitem__", refused(tar))
        with pytest.raises(click.ClickException) as one:
            sources.read(0)
    assert one.value.message == f"{tar}: Permission denied"
    monkeypatch.setattr(ShardReader, "__init__", refused(shards / "manifest.json"))
    with pytest.raises(click.ClickException) as two:
        open_sources([str(shards)])
    assert two.value.message == f"{shards / 'manifest.json'}: Permission denied"


def side(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Alter the second shard's sidecar."""

    def alter(folder: Path) -> None:
        path = folder / "segloc-00000001.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return alter


def offset(value: object) -> Callable[[Path], None]:
    return side(lambda content: content["offsets"][5].__setitem__(2, value))


BAD = {
    "missing": lambda folder: (folder / "segloc-00000001.tar").unlink(),
    "no sidecar": lambda folder: (folder / "segloc-00000001.json").unlink(),
    "short": lambda folder: (folder / "segloc-00000001.tar").write_bytes(b"x" * 1024),
    "count": side(lambda content: content.update(count=59)),
    "fewer classes": side(lambda content: content["classes"].pop()),
    "negative offset": offset(-5),
    "offset beyond the end": offset(10**12),
    "offset beyond 64 bits": offset(10**30),
    "overlapping offsets": offset(600),
    "offset of words": offset("../../x"),
    "class unknown": side(lambda content: content["classes"].__setitem__(0, 10**15)),
    "class negative": side(lambda content: content["classes"].__setitem__(0, -1)),
    "scan unknown": side(lambda content: content["scans"]["pairs"].__setitem__(0, [0, 10**6])),
    "scans of numbers": side(lambda content: content["scans"].update(names=[1] * 100)),
    "a list": lambda folder: (folder / "segloc-00000001.json").write_text("[1]"),
    "deep json": lambda folder: (folder / "segloc-00000001.json").write_text("[" * 100_000),
    "huge json": lambda folder: (folder / "segloc-00000001.json").write_bytes(b" " * 5_000_000),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_shard_stops_or_is_left_out(
    shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    folder = shutil.copytree(shards, tmp_path / "set")
    BAD[kind](folder)
    with pytest.raises(click.ClickException) as caught:
        open_sources([str(folder)])
    assert "segloc-00000001." in caught.value.message and "\n" not in caught.value.message
    with caplog.at_level(logging.WARNING, "segloc"):
        left = open_sources([str(folder)], on_bad_shard="skip")
    assert len(left) == 100 and len(left.labels) == len(left.scans) == 100
    assert [record.getMessage() for record in caplog.records] == [f"Warning: left out: {caught.value.message}"]
    assert left.identity != open_sources([str(shards)]).identity


def test_a_manifest_may_not_point_elsewhere(shards: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards, tmp_path / "set")
    for url in ("../../etc/segloc-00000000.tar", "/etc/passwd", "segloc-00000000.tar\n", 7):
        manifest = json.loads((shards / "manifest.json").read_text())
        manifest["shardlist"][0]["url"] = url
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(click.ClickException, match="is no list of shards"):
            open_sources([str(folder)])


@pytest.mark.parametrize(
    "damage",
    [
        *({"config": other} for other in (None, 5, "x", [])),
        *({"classes": []}, {"classes": [{"id": 10**30, "name": "gun"}]}, {"totals": {"samples": 10**30}}),
    ],
    ids=str,
)
def test_a_damaged_manifest_is_told_in_a_line(damage: dict[str, Any], shards: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards, tmp_path / "set")
    manifest = json.loads((shards / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **damage}))
    with pytest.raises(click.ClickException, match=r"manifest.json: .*(damaged|disagree|not a size in pixels)"):
        open_sources([str(folder)])


def test_a_set_of_an_older_format_is_to_be_built_anew(shards: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(shards, tmp_path / "set")
    manifest = json.loads((shards / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 1}))
    with pytest.raises(click.ClickException, match="shard format 1, this program reads 2; run the same segloc-synth"):
        open_sources([str(folder)])


def test_a_weighted_set_without_training_pairs_is_refused(tmp_path: Path) -> None:
    """All its pairs show a scan that is held out: there is nothing to draw its share from."""
    folder = make_shards(tmp_path / "pairs", 192, shard_size=USES)  # a scan a shard
    other = make_shards(tmp_path / "other", 192, seed=1, shard_size=USES)
    whole = open_sources([str(folder)])
    out = int(split(whole.scans, whole.scan_names).scans[0].rpartition("_")[2])
    shards = [str(folder), str(other / f"segloc-{out:08d}.tar")]
    flags = ["segloc-train", "--arch", "resnet18", "--width", "64", "--batch-size", "16"]
    for shard in shards:
        flags += ["--shards", shard, "--weight", "1"]
    options = command.make_context("segloc-train", flags[1:]).params
    known = {field.name for field in fields(Config)} & set(options)
    config, sources = open_new({name: options[name] for name in known} | {"width": 64})
    with pytest.raises(click.ClickException, match=f"segloc-{out:08d}.tar: all its pairs show scans that are held out"):
        Feed(sources, config, ALONE, torch.device("cpu"))
