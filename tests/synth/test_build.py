"""The build as a whole: what decides the bytes, what the shards hold, and what survives an interruption."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pytest
import webdataset
from click.testing import CliRunner
from pycocotools import mask as coco_mask
from tests.synth.conftest import COMMAND, SIZE, Sources, build, build_args, content

from segloc_synth.bank.labelled import read_labelled
from segloc_synth.bank.prepare import prepare_backgrounds, prepare_objects
from segloc_synth.cli import cli
from segloc_synth.compose.plan import plan_pair
from segloc_synth.compose.sample import Materials, compose_pair, make_sample
from segloc_synth.config import BLENDS, Config
from segloc_synth.shards.format import ShardReader
from segloc_synth.shards.manifest import read_page
from segloc_synth.sources.backgrounds import read_benign


@pytest.mark.parametrize(
    "features",
    [
        (),
        ("--items", 1, 3, "--distractors", 0.5, "--positives", "class", "--balance", "sqrt", "--bank-limit", 0),
    ],
)
def test_workers_path_and_history_do_not_change_a_byte(
    sources: Sources, tmp_path: Path, features: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = build(sources, tmp_path / "one", "--n", 20, *features)
    if features:  # two processes fill a bank of their own
        monkeypatch.setenv("SEGLOC_CACHE", str(tmp_path / "cache"))
    two = build(sources, tmp_path / "elsewhere" / "two", "--n", 20, "--workers", 2, *features)
    grown = build(sources, build(sources, tmp_path / "grown", "--n", 11, *features), "--n", 20, *features)
    assert content(one) == content(two) == content(grown)
    assert content(one) != content(build(sources, tmp_path / "seed", "--n", 20, "--seed", 1, *features))


@pytest.mark.parametrize("blend", BLENDS)
def test_masks_agree_with_boxes_and_pictures_with_backgrounds(sources: Sources, tmp_path: Path, blend: str) -> None:
    reader = ShardReader(build(sources, tmp_path / blend, "--n", 12, "--size", SIZE, "--blend", blend, "--items", 1, 3))
    config = Config(**reader.manifest["config"])
    _, objects = prepare_objects([read_labelled(sources[0])], SIZE, 1)
    _, backgrounds = prepare_backgrounds(read_benign(sources[1]), SIZE, "raw", 1)
    materials = Materials(config, objects, backgrounds)
    for index in range(12):
        sample = reader[index]
        made, _ = make_sample(materials, index)
        assert made == sample
        pair = plan_pair(config, materials.catalogue, len(backgrounds), index)
        key, query = compose_pair(materials, pair)
        assert key.background != query.background
        for view, composed in (("key", key), ("query", query)):
            record = sample.meta[view]
            first = record["items"][0]
            assert (record["box"], record["mask"]) == (first["box"], first["mask"])
            assert first["class_id"] == sample.meta["class_id"]
            assert len(record["items"]) == len(getattr(pair, view).pastes)
            covered = np.zeros((SIZE, SIZE), np.uint8)
            for item in record["items"]:
                mask = coco_mask.decode(item["mask"])
                assert item["box"] == list(cv2.boundingRect(mask))
                assert item["class_id"] in (11, 13)
                covered |= mask
            assert (record["blend"], record["distractors"]) == (blend, 0)
            assert record["background"] == backgrounds.name(composed.background)
            assert (record["coefficient"] == 1) == (blend == "hard")
            scene, _ = backgrounds.get(composed.background)
            assert scene is not None
            outside = cv2.dilate(covered, np.ones((3, 3), np.uint8)) == 0
            assert np.array_equal(composed.picture[outside], scene.pixels[outside])
            assert not np.array_equal(composed.picture, scene.pixels)


def test_other_readers_read_the_shards(sources: Sources, tmp_path: Path) -> None:
    out = build(sources, tmp_path / "out", "--n", 20)
    reader = ShardReader(out)
    files = sorted(str(path) for path in out.glob("segloc-*.tar"))
    table = datasets.load_dataset(
        "webdataset", data_files={"train": files}, split="train", cache_dir=str(tmp_path / "hf")
    )
    assert len(table) == 20
    stream = webdataset.WebDataset(files, shardshuffle=False).decode("rgb8")
    for index, (row, sample) in enumerate(zip(table, stream, strict=True)):
        mine = reader[index]
        assert row["json"] == sample["json"] == mine.meta
        assert row["key.jpg"].size == (64, 64)
        assert sample["query.jpg"].shape == (64, 64, 3)
        assert sample["__key__"] == f"{index:012d}"


def test_manifest_and_sidecars_tell_the_truth(sources: Sources, tmp_path: Path) -> None:
    out = build(sources, tmp_path / "out", "--n", 20)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [shard["nsamples"] for shard in manifest["shardlist"]] == [8, 8, 4]
    assert manifest["classes"] == [{"id": 11, "name": "Knife"}, {"id": 13, "name": "Ring"}]
    labels: list[int] = []
    for shard in manifest["shardlist"]:
        path = out / shard["url"]
        data = path.read_bytes()
        assert (shard["filesize"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        side = json.loads(path.with_suffix(".json").read_text())
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert [member.mtime for member in members] == [0] * len(members)
        rows = [[member.offset_data, member.size] for member in members]
        assert np.array_equal(np.reshape(side["offsets"], (-1, 2)), rows)
        labels += side["classes"]
    assert {int(key): count for key, count in manifest["totals"]["per_class"].items()} == {
        class_id: labels.count(class_id) for class_id in (11, 13)
    }
    assert str(tmp_path) not in "".join(path.read_text() for path in out.glob("*.[jm]*"))


def test_a_manifest_of_many_shards_has_pages(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ShardReader(build(sources, tmp_path / "whole", "--n", 20))
    monkeypatch.setattr("segloc_synth.shards.manifest.MAX_LISTED", 2)
    out = build(sources, tmp_path / "paged", "--n", 20)
    assert [len(path.read_text().splitlines()) for path in sorted(out.glob("shards-*.jsonl"))] == [2, 1]
    assert "shardlist" not in json.loads((out / "manifest.json").read_text())
    paged = ShardReader(out)
    assert [entry for page in (0, 1) for entry in read_page(out, paged.manifest, page)] == whole.manifest["shardlist"]
    assert paged[19] == whole[19]


def shape(value: Any) -> Any:
    """Fields and types of a JSON value."""
    if isinstance(value, dict):
        return {key: shape(part) for key, part in value.items()}
    if isinstance(value, list):
        assert value, "an empty list has no type"
        return [shape(value[0])]
    assert value is not None
    return type(value).__name__


def test_every_sample_has_the_same_fields_and_types(sources: Sources, tmp_path: Path) -> None:
    reader = ShardReader(build(sources, tmp_path / "out", "--n", 20))
    shapes = [shape(reader[index].meta) for index in range(20)]
    assert shapes == [shapes[0]] * 20


INTERRUPTED = ["--n", 600, "--shard-size", 30, "--size", 64, "--workers", 2]


@pytest.fixture(scope="module")
def undisturbed(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return content(build(sources, tmp_path_factory.mktemp("undisturbed") / "out", *INTERRUPTED))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_build_ends_as_an_undisturbed_one(
    sources: Sources, tmp_path: Path, undisturbed: dict[str, str], number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, *build_args(sources, out, *INTERRUPTED)], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    while not list(out.glob("segloc-*.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(number)
    message = process.communicate(timeout=600)[1]
    assert process.returncode == code
    assert not (out / "manifest.json").exists(), "it was over before the signal came"
    if number == signal.SIGINT:
        assert message.splitlines()[-1] == "Interrupted."
        assert not list(out.glob(".*")), "a temporary file was left"
    for shard in out.glob("segloc-*.json"):
        assert json.loads(shard.read_text())["bytes"] == shard.with_suffix(".tar").stat().st_size
    time.sleep(1)  # orphans of a killed parent end by themselves
    build(sources, out, *INTERRUPTED)
    assert content(out) == undisturbed


def test_a_folder_of_something_else_is_refused(sources: Sources, tmp_path: Path) -> None:
    out = build(sources, tmp_path / "out", "--n", 20)
    before = content(out)
    for args, words in (
        (["--n", 20, "--seed", 5], "another config (seed 0 instead of 5)"),
        (["--n", 9], "more than 9 pairs"),
        (["--n", 19], "more than 19 pairs"),
    ):
        result = CliRunner().invoke(cli, build_args(sources, out, *args))
        assert result.exit_code == 1
        assert words in result.output
    parts = [*("--n", 20, "--shard-size", 4), *("--part", "2/2")]
    gap = build(sources, tmp_path / "gap", *parts)  # shards 0 and 1 are not there
    result = CliRunner().invoke(cli, build_args(sources, gap, "--n", 4, "--shard-size", 4))
    assert result.exit_code == 1 and "more than 4 pairs" in result.output
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    result = CliRunner().invoke(cli, build_args(sources, tmp_path / "full", "--n", 9))
    assert result.exit_code == 1
    assert "is not an empty folder" in result.output
    assert content(out) == before
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_a_shard_that_was_cut_is_noticed_and_made_anew(sources: Sources, tmp_path: Path) -> None:
    out = build(sources, tmp_path / "out", "--n", 20)
    whole = content(out)
    shard = out / "segloc-00000001.tar"
    os.truncate(shard, json.loads(shard.with_suffix(".json").read_text())["offsets"][4][0] - 512)
    with pytest.raises(Exception, match=r"segloc-00000001.tar: has \d+ bytes, the manifest says"):
        ShardReader(out)
    assert content(build(sources, out, "--n", 20)) == whole
    for damage in ("{}", "", "[]"):
        (out / "segloc-00000002.json").write_text(damage)
        assert content(build(sources, out, "--n", 20)) == whole


def test_preview_draws_pairs(sources: Sources, tmp_path: Path) -> None:
    out = build(sources, tmp_path / "out", "--n", 20)
    sheet = cv2.imread(str(out / "preview.png"))
    assert sheet.shape[0] > 1000
    target = tmp_path / "two.png"
    result = CliRunner().invoke(cli, ["preview", str(out), "--pairs", "2", "--out", str(target)])
    assert result.exit_code == 0, result.output
    small = cv2.imread(str(target))
    assert small.shape[0] < sheet.shape[0]
    outline = (small == (152, 0, 225)).all(axis=2).sum()
    assert outline > 100


def test_a_reader_of_many_shards_holds_few_open(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    out = build(sources, tmp_path / "pairs", "--n", 6, "--shard-size", 1)
    code = (
        "import segloc_synth.shards.format as shards; shards.DESCRIPTORS = 2\n"
        "from pathlib import Path\n"
        f"reader = shards.ShardReader(Path({str(out)!r}))\n"
        "import os; before = len(os.listdir('/proc/self/fd'))\n"
        "read = [reader[place].meta['index'] for place in [*range(6), *range(6)]]\n"
        "assert read == [0, 1, 2, 3, 4, 5] * 2 and len(os.listdir('/proc/self/fd')) <= before + 2\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_file_is_the_same_with_one_worker_and_with_two(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for workers in (1, 2):
        monkeypatch.setenv("SEGLOC_CACHE", str(tmp_path / f"cache{workers}"))
        out = build(sources, tmp_path / f"pairs{workers}", "--n", 8, "--shard-size", 4, "--workers", workers)
        learnt = sorted((tmp_path / f"cache{workers}").rglob("palettes.npz"))
        found.append(
            {path.name: path.read_bytes() for path in out.iterdir()} | {p.parent.name: p.read_bytes() for p in learnt}
        )
    assert found[0] == found[1]
