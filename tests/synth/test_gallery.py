"""The HTML gallery: what is embedded is what the shards hold, and the page makes its filters from it."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from pycocotools import mask as coco_mask
from tests.synth.conftest import SIZE, Sources, build

from segloc_synth.cli import cli
from segloc_synth.look import gallery
from segloc_synth.look.gallery import outline, write_gallery
from segloc_synth.shards.format import Sample, ShardReader


@pytest.fixture(scope="module")
def built(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(sources, tmp_path_factory.mktemp("gallery") / "pairs", "--n", 30, "--size", SIZE)


def embedded(page: Path) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    assert found
    return json.loads(found[1])


def enrich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples get fields of other builds: another blend, a hostile name, numbers, a second item."""
    read = ShardReader.__getitem__

    def enriched(self: ShardReader, place: int) -> Sample:
        sample = read(self, place)
        key = sample.meta["key"]
        key |= {"blend": "multiply", "background": "</script><b>&amp;", "occlusion": place / 10, "pose": [0.1, -0.2]}
        key["items"].append({**sample.meta["query"]["items"][0], "segment": "another#1"})
        return sample

    monkeypatch.setattr(ShardReader, "__getitem__", enriched)


def test_embedded_pairs_are_the_shards(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enrich(monkeypatch)
    write_gallery(built, tmp_path / "gallery.html", 7)
    pairs, reader = embedded(tmp_path / "gallery.html")["pairs"], ShardReader(built)
    assert [pair["index"] for pair in pairs] == [0, 4, 9, 14, 19, 24, 29]
    for pair in pairs:
        sample = reader[pair["index"]]
        for view in ("key", "query"):
            record, shown = sample.meta[view], pair[view]
            assert base64.b64decode(shown["picture"].removeprefix("data:image/jpeg;base64,")) == getattr(sample, view)
            for name in record.keys() - {"box", "mask", "items"}:
                assert shown[name] == record[name], name
            for item, drawn in zip(record["items"], shown["items"], strict=True):
                assert drawn["box"] == item["box"]
                assert drawn["area"] == coco_mask.area(item["mask"])
                assert drawn.get("segment") == item.get("segment")
                points = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", drawn["outline"]), float)
                x, y, width, height = item["box"]
                assert (points.min(0) == [x - 0.5, y - 0.5]).all()
                assert (points.max(0) == [x + width + 0.5, y + height + 0.5]).all()


def test_a_damaged_picture_names_the_remedy(built: Path, tmp_path: Path) -> None:
    out = shutil.copytree(built, tmp_path / "out")
    tar = out / "segloc-00000000.tar"
    data = bytearray(tar.read_bytes())
    start, size = json.loads(tar.with_suffix(".json").read_text())["offsets"][0][2:4]
    data[start : start + size] = bytes(size)
    tar.write_bytes(data)
    for html in ((), ("--html",)):
        result = CliRunner().invoke(cli, ["preview", str(out), *html])
        assert result.output == (
            f"Error: {out}: a picture of pair 0 is damaged; run segloc-synth verify {out} --repair\n"
        )


def test_an_outline_runs_along_holes_and_borders() -> None:
    ring = np.ones((9, 9), np.uint8)
    ring[3:6, 3:6] = 0
    loops = [np.array(re.findall(r"-?\d+\.5", loop), float) for loop in outline(ring).split("M")[1:]]
    assert sorted((loop.min(), loop.max()) for loop in loops) == [(-0.5, 9.5), (3.5, 5.5)]


def test_a_large_gallery_is_thinned_and_large_pictures_shrunk(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MAX_BYTES", 60_000)
    monkeypatch.setattr(gallery, "MAX_SIDE", 48)
    write_gallery(built, tmp_path / "gallery.html")
    pairs = embedded(tmp_path / "gallery.html")["pairs"]
    assert 3 < len(pairs) < 30
    assert (pairs[0]["index"], pairs[-1]["index"]) == (0, 29)
    assert 30_000 < sum(len(json.dumps(pair)) for pair in pairs) <= 63_000
    picture = np.frombuffer(base64.b64decode(pairs[0]["key"]["picture"].partition(",")[2]), np.uint8)
    assert cv2.imdecode(picture, cv2.IMREAD_COLOR).shape == (48, 48, 3)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium to open the page with")
def test_a_browser_makes_the_filters_from_the_data(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrich(monkeypatch)
    page = tmp_path / "gallery.html"
    result = CliRunner().invoke(cli, ["preview", str(built), "--html", "--out", str(page), "--pairs", "12"])
    assert result.exit_code == 0, result.output
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    chips = dict(re.findall(r'class="chip"[^>]*>([^<]+) <small>(\d+)</small>', dom))
    assert chips.keys() == {"Knife", "Ring", "dual-energy", "multiply"}
    assert chips["dual-energy"] == chips["multiply"] == "12" == str(int(chips["Knife"]) + int(chips["Ring"]))
    ranges = re.findall(r'aria-label="least ([a-z]+)"', dom)
    assert ranges == ["coefficient", "scale", "rotation", "occlusion"]
    assert "12 of 12 pairs" in dom
    assert dom.count("<figure") == 24
    assert dom.count('class="other"') == 24  # outline and box of each key's second item
