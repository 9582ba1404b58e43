"""The data card: the same bytes wherever it is written, and numbers that are those of the shards."""

import json
import shlex
from pathlib import Path

import click
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from tests.synth.conftest import Sources, build

from segloc_synth.files import PathOrUrl
from segloc_synth.look import charts
from segloc_synth.look.card import Statistics, card, command_line, look, write_card
from segloc_synth.shards.format import ShardReader

LICENCES = ("--licence", "objects:  drawn, CC0", "--licence", "backgrounds: 'ours'")


def card_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".md", ".png")}


def test_neither_path_nor_workers_change_the_card(sources: Sources, tmp_path: Path) -> None:
    one = card_files(build(sources, tmp_path / "one", *LICENCES, "--scale", 0.8, "1.20"))
    two = card_files(build(sources, tmp_path / "b" / "two", "--workers", 2, "--scale", ".80", 1.2, *LICENCES))
    assert one == two
    assert one.keys() >= {"README.md", "classes.png", "sizes.png", "preview.png"}
    text = one["README.md"].decode()
    assert not any(str(path) in text for path in (tmp_path, *sources))
    command = next(line for line in text.splitlines() if line.startswith("segloc-synth build"))
    parts = ("--objects OBJECTS", "--backgrounds BACKGROUNDS", "--out OUT", "--n 20", "--size 64", "--scale 0.8 1.2")
    assert all(part in command for part in parts), command
    assert not any(name in command for name in ("--workers", "--seed", "--coefficient", "--strict"))


def test_the_command_hides_every_path_and_repeats_what_was_given() -> None:
    path = PathOrUrl()
    options = [
        click.Option(["--objects"], type=path, multiple=True),
        click.Option(["--backgrounds"], type=path),
        click.Option(["--items"], type=int, nargs=2, default=(1, 1)),
        click.Option(["--rate"], type=float, default=0.5),
        click.Option(["--limit"], type=float, default=64.0),
        click.Option(["--allow-test"], is_flag=True),
        click.Option(["--workers"], type=int, default=1),
    ]
    given = "--backgrounds s3://bucket/key --rate 0.10 --limit 0 --items 1 3 --objects /a --objects 'b c' --allow-test"
    given += " --workers 7"
    context = click.Command("build", params=list(options)).make_context("build", shlex.split(given))
    assert command_line(context) == (
        "segloc-synth build --objects OBJECTS_1 --objects OBJECTS_2 --backgrounds BACKGROUNDS --items 1 3 --rate 0.1 "
        "--limit 0 --allow-test"
    )


def test_a_licence_is_noted_and_changes_no_sample(sources: Sources, tmp_path: Path) -> None:
    noted, plain = build(sources, tmp_path / "noted", *LICENCES), build(sources, tmp_path / "plain")
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (noted, plain)]
    assert [manifest.pop("licences") for manifest in manifests] == [["objects:  drawn, CC0", "backgrounds: 'ours'"], []]
    for manifest in manifests:
        del manifest["command"]
    assert manifests[0] == manifests[1]
    _, head, body = (noted / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head)["license_name"] == "objects: drawn, CC0; backgrounds: 'ours'"
    assert "\n- objects: drawn, CC0\n- backgrounds: 'ours'\n" in body
    assert "license_name" not in (plain / "README.md").read_text()


def test_statistics_are_those_of_the_masks(sources: Sources, tmp_path: Path) -> None:
    reader = ShardReader(build(sources, tmp_path / "out"))
    found = look(tmp_path / "out")
    assert found.samples == 20
    for place in range(20):
        for view in ("key", "query"):
            mask = coco_mask.decode(reader[place].meta[view]["mask"])
            assert found.sizes[view][place] == pytest.approx(np.sqrt(mask.mean()))
    assert "overlap.png" not in (tmp_path / "out" / "README.md").read_text()
    sample = reader[0]
    items = sample.meta["key"]["items"]
    items += [reader[place].meta["key"]["items"][0] for place in (1, 2)] + [{**items[0]}]
    sample.meta["key"]["occlusion"] = 0.25
    several = Statistics()
    several.add(sample)
    assert (several.overlap, several.occlusion["key"]) == ({"key": [1.0], "query": []}, [0.25])
    text = card(reader.manifest, several)
    assert "overlap.png" in text
    assert "occlusion.png" in text


def test_odd_names_and_large_numbers_are_told(sources: Sources, tmp_path: Path) -> None:
    out = build(sources, tmp_path / "out")
    manifest = ShardReader(out).manifest
    manifest["totals"] |= {"problems": {"scan without a bag": {"count": 3, "first": ["\udcff.png"]}}, "samples": 10**8}
    manifest["classes"][0]["name"] = "Gun|<b>x</b>\ny"
    write_card(out, manifest)
    text = (out / "README.md").read_text("utf-8")
    assert r"first in \udcff.png" in text
    assert f"| {manifest['classes'][0]['id']} | Gun&#124;&lt;b&gt;x&lt;/b&gt; y | " in text
    assert 'size_categories: ["100M<n<1B"]' in text


def test_bars_stand_where_the_values_are(tmp_path: Path) -> None:
    (tmp_path / "chart.png").write_bytes(charts.histogram({"key": [0.31, 0.35, 0.9]}, [0, 0.25, 0.5, 0.75, 1], "", ""))
    ink = (np.asarray(Image.open(tmp_path / "chart.png")) == charts.HUES[0]).all(2)
    wide = charts.WIDTH - charts.LEFT - charts.RIGHT
    bins = ink[:, charts.LEFT : charts.LEFT + wide].reshape(len(ink), 4, wide // 4).sum(0).max(1)
    assert bins[[0, 2]].tolist() == [0, 0]
    assert bins[1] == pytest.approx(2 * bins[3], abs=3)
