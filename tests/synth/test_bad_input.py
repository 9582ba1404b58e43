"""A user's mistake gives one clear line and a non-zero exit; a bad record is left out, counted and listed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tests.conftest import save, write_benign, write_labelled

from segloc_synth.bank.merging import read_mapping
from segloc_synth.cli import cli
from segloc_synth.shards.format import ShardReader
from segloc_synth.sources.images import BadImage, read_image
from segloc_synth.sources.layouts.voc import read_xml
from segloc_synth.sources.text import BadLabel


def run(out: Path, *args: object) -> Result:
    fixed = ["build", "--out", out, "--n", 4, "--size", 96, "--workers", 1]
    return CliRunner().invoke(cli, [str(part) for part in [*fixed, *args]])


def refused(out: Path, *args: object) -> str:
    """The error line of a build that is refused and leaves nothing behind."""
    result = run(out, *args)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (1, 2), result.output
    assert not out.exists()
    line = result.output.splitlines()[-1]
    assert line.startswith("Error: ")
    return line


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return write_labelled(tmp_path / "labelled")


@pytest.fixture
def benign(tmp_path: Path) -> Path:
    return write_benign(tmp_path / "benign")


def test_sources_that_cannot_serve(tmp_path: Path, labelled: Path, benign: Path, sources: tuple[Path, Path]) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "text.json").write_text("{ no json")
    (tmp_path / "list.json").write_text("[1, 2]")
    boxes = json.loads(labelled.read_text())
    for annotation in boxes["annotations"]:
        annotation |= {"segmentation": [], "bbox": [20, 20, 30, 30]}
    (labelled.parent / "boxes.json").write_text(json.dumps(boxes))
    (tmp_path / "away.json").write_text(labelled.read_text())
    (tmp_path / "nulls.json").write_text(json.dumps({**boxes, "annotations": [None]}))
    for objects, words in (
        (tmp_path / "absent", "no such file or folder"),
        (empty, "no annotations"),
        (tmp_path / "text.json", "not valid JSON"),
        (tmp_path / "list.json", "not a COCO file"),
        (tmp_path / "nulls.json", "nothing usable in it: "),
        (labelled.parent / "boxes.json", "boxes without masks"),
        (tmp_path / "away.json", "nothing usable in it: image file is missing"),
    ):
        line = refused(out, "--objects", objects, "--backgrounds", benign)
        assert words in line
        assert str(objects) in line
    for backgrounds, words in (
        (tmp_path / "absent", "no such folder"),
        (empty, "two different benign scans"),
        (labelled, "is a file"),
    ):
        line = refused(out, "--objects", labelled, "--backgrounds", backgrounds)
        assert words in line
        assert str(backgrounds) in line
    assert "both --objects and --backgrounds" in refused(out, "--objects", labelled)


@pytest.mark.parametrize(
    "args",
    [
        ["--n", "0"],
        ["--size", "8"],
        ["--seed", "-1"],
        ["--workers", "0"],
        ["--shard-size", "0"],
        ["--coefficient", "0", "0.5"],
        ["--coefficient", "0.9", "0.5"],
        ["--coefficient", "0.5", "1.5"],
        ["--scale", "2", "1"],
        ["--scale", "0", "1"],
        ["--scale", "1", "nan"],
        ["--coefficient", "nan", "0.5"],
        ["--blend", "poisson"],
    ],
)
def test_a_number_out_of_range_is_wrong_usage(tmp_path: Path, sources: tuple[Path, Path], args: list[str]) -> None:
    line = refused(tmp_path / "out", "--objects", sources[0], "--backgrounds", sources[1], *args)
    assert args[0] in line


def test_phantom_refuses_too_few_scans(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["phantom", "--out", str(tmp_path / "p"), "--images", "2"])
    assert result.exit_code == 2
    assert not (tmp_path / "p").exists()


def annotation(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        data["annotations"][0].update(changes)

    return change


NO_NAMES = ("two\nlines", " ", "\ud800")
NO_NAME = "category whose name is not a line of text: set.json category 2"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (annotation(image_id=99), "an image that the file does not list: set.json annotation 0"),
        (annotation(category_id=99), "unknown category: scan 0 (a).png annotation 0"),
        (annotation(iscrowd=1), "crowd annotation: scan 0 (a).png annotation 0"),
        (annotation(segmentation=[]), "annotation without mask or box: scan 0 (a).png annotation 0"),
        (
            lambda data: data["images"][0].update(width=140.5),
            "width or height is no whole number: scan 0 (a).png image 0",
        ),
        (lambda data: data["images"][0].update(file_name="a" * 300 + ".png"), "image file is missing: aaaa"),
        *((lambda data, name=name: data["categories"].append({"id": 2, "name": name}), NO_NAME) for name in NO_NAMES),
        (annotation(segmentation=[[1, 1, 9, 9]]), "fewer than 3 points: scan 0 (a) annotation 0"),
        (annotation(segmentation=[[900, 1, 990, 9, 950, 50]]), "outside the image: scan 0 (a) annotation 0"),
        (annotation(segmentation=[[5, 5, 50, 5, 5, 5]]), "without area: scan 0 (a) annotation 0"),
        (annotation(segmentation=[[20, 20, 23, 20, 23, 22]]), "too small to be seen at 96 px: scan 0 (a)"),
    ],
)
def test_a_bad_annotation_is_left_out_and_listed(
    tmp_path: Path, labelled: Path, benign: Path, change: Callable[[dict[str, Any]], None], kind: str
) -> None:
    data = json.loads(labelled.read_text())
    change(data)
    labelled.write_text(json.dumps(data))
    args = ["--objects", labelled, "--backgrounds", benign]
    if "crowd" in kind:  # part of the format, not a fault
        assert run(tmp_path / "strict", *args, "--strict").exit_code == 0
    else:
        assert kind in refused(tmp_path / "strict", *args, "--strict")
    result = run(tmp_path / "out", *args)
    assert result.exit_code == 0, result.output
    assert "1 skipped: " in result.output
    assert kind in result.output
    problems = json.loads((tmp_path / "out" / "problems.json").read_text())
    assert [kind.partition(":")[0] in problem["kind"] for problem in problems] == [True]


def damage(path: Path, how: str) -> None:
    image = Image.open(path).convert("RGB")
    if how == "zero":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "text":
        path.write_text("not a picture")
    elif how == "absent":
        path.unlink()
    elif how == "size":
        image.resize((50, 40)).save(path)
    elif how == "grey":
        image.convert("L").save(path)
    elif how == "white":
        Image.new("RGB", image.size, "white").save(path)
    elif how == "alpha":
        image.convert("RGBA").save(path)
    elif how == "deep":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("zero", "1 skipped: image file of zero bytes: "),
        ("truncated", "1 skipped: image file is damaged or no picture: "),
        ("text", "1 skipped: image file is damaged or no picture: "),
        ("absent", "1 skipped: image file is missing: "),
        ("size", "1 skipped: image of another size than its labels say: "),
        ("grey", "1 used: greyscale image"),
        ("alpha", "1 used: image with an alpha channel"),
        ("deep", "1 used: 16-bit image"),
    ],
)
def test_a_bad_picture_is_listed_by_kind(tmp_path: Path, labelled: Path, benign: Path, how: str, line: str) -> None:
    damage(labelled.parent / "images" / "scan 3 (a).png", how)
    result = run(tmp_path / "out", "--objects", labelled, "--backgrounds", benign)
    assert result.exit_code == 0, result.output
    assert line in result.output
    assert "scan 3 (a)" in result.output
    strict = ["--objects", labelled, "--backgrounds", benign, "--strict"]
    if " used: " in line:
        assert run(tmp_path / "strict", *strict).exit_code == 0
    else:
        assert "scan 3 (a)" in refused(tmp_path / "strict", *strict)


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("zero", "image file of zero bytes"),
        ("truncated", "image file is damaged or no picture"),
        ("text", "image file is damaged or no picture"),
        ("white", "scan without a bag"),
        ("grey", "greyscale image, used as grey"),
    ],
)
def test_a_bad_benign_scan_is_met_in_the_shards(
    tmp_path: Path, labelled: Path, benign: Path, how: str, kind: str
) -> None:
    damage(benign / "N0000001.png", how)
    args = ["--objects", labelled, "--backgrounds", benign, "--n", 8, "--shard-size", 4]
    result = run(tmp_path / "out", *args)
    assert result.exit_code == 0, result.output
    manifest, *sides = (
        json.loads((tmp_path / "out" / f"{name}.json").read_text())
        for name in ("manifest", "segloc-00000000", "segloc-00000001")
    )
    met = manifest["totals"]["problems"][kind]
    assert met["first"] == ["N0000001.png"]
    assert met["count"] == sum(side["problems"].get(kind, {"count": 0})["count"] for side in sides) > 1
    assert f"{tmp_path / 'out'}: {met['count']} views: {kind}: N0000001.png" in result.output
    assert json.loads((tmp_path / "out" / "problems.json").read_text()) == []
    reader = ShardReader(tmp_path / "out")
    drawn = {reader[place].meta[view]["background"] for place in range(8) for view in ("key", "query")}
    assert ("N0000001" in drawn) == (how == "grey")
    strict = run(tmp_path / "strict", *args, "--strict")
    if how == "grey":
        assert strict.exit_code == 0
    else:
        assert strict.exit_code in (1, 3)
        (told,) = [line for line in strict.output.splitlines() if line.startswith("Error: ")]
        assert f"Error: {benign / 'N0000001.png'}: {kind}; mend it or leave out --strict" in told


def test_one_usable_scan_is_no_pair(tmp_path: Path, labelled: Path, benign: Path) -> None:
    for path in sorted(benign.iterdir())[1:]:
        damage(path, "white")
    result = run(tmp_path / "out", "--objects", labelled, "--backgrounds", benign)
    assert result.exit_code == 1
    line = result.output.splitlines()[-1]
    assert line.startswith(f"Error: {benign}: a pair needs two usable scans of different bags; scan without a bag: ")
    for path in benign.iterdir():
        damage(path, "zero")
    result = run(tmp_path / "out2", "--objects", labelled, "--backgrounds", benign)
    assert (result.exit_code, "image file of zero bytes: N000" in result.output.splitlines()[-1]) == (1, True)


def test_cut_outs_on_white_are_used_in_their_own_colours(tmp_path: Path, labelled: Path, benign: Path) -> None:
    """Scans of single items, without a bag: their colours are learnt from the items."""
    for path in (labelled.parent / "images").iterdir():
        scan = np.asarray(Image.open(path)).copy()
        items = ((scan == (30, 60, 150)) | (scan == (40, 90, 60))).all(2)
        scan[~items] = 255
        save(path, scan)
    result = run(tmp_path / "out", "--objects", labelled, "--backgrounds", benign)
    assert result.exit_code == 0, result.output
    assert "from 12 segments" in result.output


def test_of_several_sources_the_one_at_fault_is_named(tmp_path: Path, labelled: Path, benign: Path) -> None:
    empty = tmp_path / "empty"
    for folder, colour in (("images", 255), ("masks", 0)):
        (empty / folder).mkdir(parents=True)
        Image.new("L", (100, 80), colour).save(empty / folder / "a.png")
    line = refused(tmp_path / "out", "--objects", empty, "--backgrounds", benign)
    assert line == f"Error: {empty}: no usable segment; its labels show no object in any scan"
    other = write_labelled(tmp_path / "other", 3)
    for path in (other.parent / "images").iterdir():
        damage(path, "truncated")
    both = ["--objects", empty, "--objects", other, "--backgrounds", benign]
    assert f"Error: {other}: no usable segment; image file is damaged" in refused(tmp_path / "out", *both)
    both[1] = labelled
    assert f"Error: {other}: 3 problem(s), the first: image file is damaged" in refused(
        tmp_path / "out", *both, "--strict"
    )


def test_when_nothing_usable_is_left_the_source_is_named(tmp_path: Path, labelled: Path, benign: Path) -> None:
    for path in (labelled.parent / "images").iterdir():
        damage(path, "truncated")
    line = refused(tmp_path / "out", "--objects", labelled, "--backgrounds", benign)
    assert f"{labelled.parent / 'set.json'}: no usable segment; image file is damaged" in line


def test_grey_values_and_transparency_are_kept(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for name in ("grey.png", "deep.png"):
        assert np.array_equal(read_image(tmp_path / name)[0], np.dstack([ramp] * 3))
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8, :, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    pixels, kinds = read_image(tmp_path / "clear.png")
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[15, 0].tolist() == [255, 255, 255]
    assert len(kinds) == 1


def test_a_decompression_bomb_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(BadImage, match="megapixels"):
        read_image(tmp_path / "bomb.png")


def test_an_exif_turned_photo_is_used_as_its_json_says(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg", expect=(20, 10))[0].shape == (10, 20, 3)
    pixels, kinds = read_image(tmp_path / "turned.jpg", expect=(10, 20))
    assert pixels.shape == (20, 10, 3)
    assert kinds == ["image turned upright by its EXIF tag"]


def test_a_thin_strip_is_no_reason_to_stop(tmp_path: Path, labelled: Path, benign: Path) -> None:
    Image.new("RGB", (3000, 6), "white").save(benign / "strip.jpg")
    result = run(tmp_path / "out", "--objects", labelled, "--backgrounds", benign)
    assert result.exit_code == 0, result.output


def test_a_class_name_is_a_line_of_text_in_every_layout(tmp_path: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    with pytest.raises(BadLabel, match="not a line of text"):
        read_xml(f"<annotation><object><name>two\nlines</name>{box}</object></annotation>")
    (tmp_path / "classes.json").write_text(json.dumps({"gun": "two\nlines"}))
    with pytest.raises(click.ClickException, match=r"classes.json: 'gun' must be mapped to a line of text"):
        read_mapping(tmp_path / "classes.json")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # the second is that of LC_ALL=C
def test_names_in_any_encoding_can_be_printed(labelled: Path, benign: Path, errors: str) -> None:
    Image.new("L", (100, 80), 255).save(os.fsencode(benign) + b"/b\xe9gage.png", "PNG")
    command = [sys.executable, "-m", "segloc_synth", "check", str(benign), "--workers", "1"]
    env = {**os.environ, "PYTHONIOENCODING": f"utf-8:{errors}"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert "Traceback" not in result.stderr
    assert "b\\udce9gage.png" in result.stdout
    data = json.loads(labelled.read_text())
    data["images"][0]["file_name"] = "\ud800.png"
    labelled.write_text(json.dumps(data))
    command[4] = str(labelled)
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert "Traceback" not in result.stderr
    assert "image file is missing: ?.png" in result.stdout


def test_the_program_itself_prints_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "segloc_synth"]
    args = ["build", "--out", tmp_path / "o", "--objects", tmp_path / "no", "--backgrounds", tmp_path]
    result = subprocess.run([*command, *args], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == f"Error: {tmp_path / 'no'}: no such file or folder\n"
    assert subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout.startswith(
        "segloc-synth "
    )
    (tmp_path / "locked").write_text("")
    args = ["preview", tmp_path / "locked"]
    result = subprocess.run([*command, *args], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1


def test_real_scans_of_every_kind(tmp_path: Path, scans: Path) -> None:
    args = ["--objects", scans / "sixray_masks", "--backgrounds", scans / "sixray_negatives"]
    result = run(tmp_path / "out", *args)
    assert result.exit_code == 0, result.output
    sheet = cv2.imread(str(tmp_path / "out" / "preview.png"))
    assert sheet is not None
    boxes_only = scans / "pidray_boxes" / "derived_coco_boxes.json"
    assert "boxes without masks" in refused(tmp_path / "x", "--objects", boxes_only, *args[2:])
    for folder in ("gdxray_grey", "mixed_masks/img", "xray6dom_boxes"):
        result = run(tmp_path / folder.replace("/", "-"), *args[:2], "--backgrounds", scans / folder)
        assert result.exit_code == 0, result.output
