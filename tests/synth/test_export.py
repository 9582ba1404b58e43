"""A build as a COCO data set: pictures and masks as in the shards, read by COCO tools and by ours; whole or absent."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from tests.synth.conftest import Sources, build

from segloc_eval.data.datasets import load_data
from segloc_synth.bank.labelled import read_labelled
from segloc_synth.cli import cli
from segloc_synth.look.export import export_coco
from segloc_synth.shards import format as shards
from segloc_synth.shards.format import Sample, ShardReader, parse_record


@pytest.fixture(scope="module")
def pairs(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(sources, tmp_path_factory.mktemp("export") / "pairs", "--n", 24, "--size", 96, "--shard-size", 10)


def two_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key gets a second item."""
    read = ShardReader.__getitem__

    def more(self: ShardReader, place: int) -> Sample:
        sample = read(self, place)
        sample.meta["key"]["items"].append({**sample.meta["query"]["items"][0], "segment": "another#1"})
        return sample

    monkeypatch.setattr(ShardReader, "__getitem__", more)


def test_the_exported_set_is_the_build(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_items(monkeypatch)
    assert export_coco(pairs, tmp_path / "coco") == 48
    coco, reader = COCO(str(tmp_path / "coco" / "annotations.json")), ShardReader(pairs)
    assert coco.dataset["info"]["config_hash"] == reader.manifest["config_hash"]
    assert coco.dataset["categories"] == reader.classes
    for id, image in coco.imgs.items():
        sample, view = reader[image["pair"]], image["view"]
        record = sample.meta[view]
        assert (tmp_path / "coco" / "images" / image["file_name"]).read_bytes() == getattr(sample, view)
        assert image["file_name"] == f"{image['pair']:012d}_{view}.jpg"
        assert (image["background"], image["segment"]) == (record["background"], record["segment"])
        annotations = coco.imgToAnns[id]
        assert len(annotations) == (2 if view == "key" else 1)
        for item, annotation in zip(record["items"], annotations, strict=True):
            mask = coco_mask.decode(item["mask"])
            assert (coco.annToMask(annotation) == mask).all()
            assert annotation["area"] == mask.sum()
            assert (annotation["bbox"], annotation["category_id"]) == (item["box"], item["class_id"])
    assert 0 not in coco.anns  # which COCO's evaluation takes for "no match"
    assert len(coco.anns) == 72


def test_our_own_readers_take_it(pairs: Path, tmp_path: Path) -> None:
    export_coco(pairs, tmp_path / "coco")
    labelled = read_labelled(tmp_path / "coco")
    assert not labelled.problems
    assert sum(len(scan.annotations) for scan in labelled.scans) == 48
    data = load_data(tmp_path / "coco", ["all"], 0)
    assert not data.problems
    assert data.masks
    assert len(data.train) + len(data.val) + len(data.tests["test"]) == 48


def test_a_part_of_it_keeps_its_ids(pairs: Path, tmp_path: Path) -> None:
    for out, more in (("all", ()), ("part", ("--view", "query", "--n", "5"))):
        result = CliRunner().invoke(cli, ["export", str(pairs), "--coco", str(tmp_path / out), *more])
        assert result.exit_code == 0, result.output
    whole, part = (json.loads((tmp_path / out / "annotations.json").read_text()) for out in ("all", "part"))
    assert part["images"] == [image for image in whole["images"] if image["view"] == "query"][:5]
    assert len(list((tmp_path / "part" / "images").iterdir())) == len(part["annotations"]) == 5


def test_a_folder_in_use_is_refused_and_left_alone(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "mine.txt").write_text("mine")
    result = CliRunner().invoke(cli, ["export", str(pairs), "--coco", str(tmp_path / "coco")])
    assert result.exit_code == 1
    assert "not empty" in result.output
    assert [path.name for path in tmp_path.rglob("*")] == ["coco", "mine.txt"]


def test_what_comes_into_the_folder_meanwhile_stays_and_is_told(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, mine = ShardReader.__getitem__, tmp_path / "coco" / "mine.txt"

    def slow(self: ShardReader, place: int) -> Sample:
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        return read(self, place)

    monkeypatch.setattr(ShardReader, "__getitem__", slow)
    result = CliRunner().invoke(cli, ["export", str(pairs), "--coco", str(tmp_path / "coco")])
    assert result.exit_code == 1
    assert "not empty" in result.output
    assert [path.name for path in tmp_path.rglob("*")] == ["coco", "mine.txt"]


ITEM = {"class_id": 11, "box": [1, 2, 3, 4], "mask": {"size": [96, 96], "counts": "X1"}}


@pytest.mark.parametrize(
    "damage",
    [
        {"index": 27},
        {"key": None},
        {"key": {"items": []}},
        {"query": {"items": [{**ITEM, "mask": None}]}},
        {"query": {"items": [{**ITEM, "box": "none"}]}},
        {"query": {"items": [{**ITEM, "mask": {"size": [96, 96], "counts": "o" * 99}}]}},
        {"query": {"items": [{**ITEM, "mask": {"size": [10**6, 10**6], "counts": "0"}}]}},
        {"query": {"scale": None}},
    ],
    ids=str,
)
@pytest.mark.parametrize("command", [("preview", "--out"), ("preview", "--html", "--out"), ("export", "--coco")])
def test_a_record_that_lacks_something_is_named(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: dict[str, Any], command: tuple[str, ...]
) -> None:
    def parse(data: bytes) -> Any:
        meta = parse_record(data)
        assert meta is not None
        views = {view: {**meta[view], **new} if new else new for view, new in damage.items() if view != "index"}
        return {**meta, **views} if views else damage

    monkeypatch.setattr(shards, "parse_record", parse)
    name, *more = command
    result = CliRunner().invoke(cli, [name, str(pairs), *more, str(tmp_path / "out")])
    assert isinstance(result.exception, SystemExit), result.exception
    told = f"{pairs / 'segloc-00000000.tar'}: 000000000000.json is damaged; run segloc-synth verify {pairs} --repair"
    assert result.output.splitlines() == [f"Error: {told}"]
    assert not list(tmp_path.iterdir())


def test_a_damaged_picture_is_not_exported(pairs: Path, tmp_path: Path) -> None:
    out = shutil.copytree(pairs, tmp_path / "pairs")
    tar = out / "segloc-00000000.tar"
    data = bytearray(tar.read_bytes())
    start, size = json.loads(tar.with_suffix(".json").read_text())["offsets"][3][4:6]
    data[start : start + size] = bytes(size)
    tar.write_bytes(data)
    result = CliRunner().invoke(cli, ["export", str(out), "--coco", str(tmp_path / "coco")])
    told = f"Error: {out}: a picture of pair 3 is damaged; run segloc-synth verify {out} --repair"
    assert (result.exit_code, result.output.splitlines()) == (1, [told])
    assert not (tmp_path / "coco").exists()


INTERRUPTED = """
import os, signal
from segloc_synth import cli
from segloc_synth.shards import format as shards
read = shards.ShardReader.__getitem__
def interrupted(self, place):
    if place == 9:
        os.kill(os.getpid(), signal.SIGINT)
    return read(self, place)
shards.ShardReader.__getitem__ = interrupted
cli.main()
"""


def test_interrupted_it_leaves_nothing_and_a_killed_run_is_no_obstacle(pairs: Path, tmp_path: Path) -> None:
    killed = subprocess.Popen(["true"])
    killed.wait()
    (tmp_path / ".tmp" / f"coco~{os.uname().nodename}~{killed.pid}" / "images").mkdir(parents=True)
    command = [sys.executable, "-c", INTERRUPTED, "export", str(pairs), "--coco", str(tmp_path / "coco")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, "Interrupted.")
    assert not any(tmp_path.iterdir())
