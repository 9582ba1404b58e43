"""Every usual layout is told by its files and read alike; hostile label files are told in a line."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from tests.eval.conftest import CLASSES, write_split, write_voc

from segloc_eval.data import preflight
from segloc_eval.data.datasets import Data, convert, find_layout, load_data, truth
from segloc_eval.data.scans import name_below
from segloc_synth.sources import problems
from segloc_synth.sources.layouts import voc, yolo
from segloc_synth.sources.layouts.splits import LONE, split_name
from segloc_synth.sources.layouts.yolo import yolo_line
from segloc_synth.sources.text import NO_TEXT

Make = Callable[..., Path]
NUMBERS = {id: place for place, id in enumerate(CLASSES)}  # of our classes, in YOLO


def write_yolo(pictures: Path, labels: Path, json_path: Path, polygons: bool = False) -> None:
    """Write the labels of a COCO json as YOLO text."""
    data = json.loads(json_path.read_text())
    labels.mkdir(parents=True, exist_ok=True)
    for image in data["images"]:
        sides = np.array([image["width"], image["height"]])
        lines = []
        for thing in (a for a in data["annotations"] if a["image_id"] == image["id"]):
            x, y, w, h = thing["bbox"]
            corners = [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]
            numbers = np.array(corners if polygons else [[x + w / 2, y + h / 2], [w, h]]) / sides
            lines.append(f"{NUMBERS[thing['category_id']]} " + " ".join(map(repr, map(float, numbers.ravel()))))
        (labels / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    json_path.unlink()


def parts(root: Path, names: dict[str, int], masks: bool = False) -> dict[str, Path]:
    """A folder of scans and a json for each split, to be put into some layout."""
    for seed, (name, scans) in enumerate(names.items()):
        write_split(root / name, root / f"{name}.json", scans, 64, seed, 2, masks)
    return {name: root / f"{name}.json" for name in names}


def objects(data: Data) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """File name -> class and box, to a hundredth of a pixel, of each object of a split that is scored or learnt."""
    return {
        scan.path.name: sorted(
            (data.classes[o.category_id], tuple(round(float(v), 2) for v in o.box)) for o in scan.objects
        )
        for group in (data.train, data.val, *data.tests.values())
        for scan in group
    }


def make_coco(root: Path, jsons: dict[str, Path]) -> None:
    (root / "annotations").mkdir()
    (root / "images").mkdir()
    for name, path in jsons.items():
        path.rename(root / "annotations" / f"instances_{name}2017.json")
        (root / name).rename(root / "images" / f"{name}2017")
    (root / "annotations" / "captions_train2017.json").write_text("{}")


def make_roboflow(root: Path, jsons: dict[str, Path]) -> None:
    for name, path in jsons.items():
        data = json.loads(path.read_text())
        for category in data["categories"]:
            category["supercategory"] = "weapons"
        data["categories"].insert(0, {"id": 0, "name": "weapons", "supercategory": "none"})
        path.unlink()
        (root / name / "_annotations.coco.json").write_text(json.dumps(data))
    if "val" in jsons:
        (root / "val").rename(root / "valid")


def make_voc(root: Path, jsons: dict[str, Path]) -> None:
    for name, path in jsons.items():
        path.rename(root / name / "annotations.json")
        (root / name / "images").mkdir()
        for picture in (root / name).glob("*.png"):
            picture.rename(root / name / "images" / picture.name)
        write_voc(root / name)


def make_vocdevkit(root: Path, jsons: dict[str, Path]) -> None:
    top = root / "VOC2007"
    (top / "ImageSets" / "Main").mkdir(parents=True)
    make_voc(root, jsons)
    for folder in ("JPEGImages", "Annotations"):
        (top / folder).mkdir()
    for name in jsons:
        stems = sorted(path.stem for path in (root / name).rglob("*.png"))
        (top / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(stems))
        (top / "ImageSets" / "Main" / f"Gun_{name}.txt").write_text("\n".join(f"{stem} -1" for stem in stems))
        for path in (root / name / "images").iterdir():
            path.rename(top / ("JPEGImages" if path.suffix == ".png" else "Annotations") / path.name)
        shutil.rmtree(root / name)


def make_yolo(root: Path, jsons: dict[str, Path]) -> None:
    (root / "images").mkdir()
    for name, path in jsons.items():
        write_yolo(root / name, root / "labels" / name, path)
        (root / name).rename(root / "images" / name)
    (root / "data.yaml").write_text("names:\n" + "".join(f"  {n}: {CLASSES[id]}\n" for id, n in NUMBERS.items()))


def make_yolo_inside(root: Path, jsons: dict[str, Path]) -> None:
    for name, path in jsons.items():
        folder = root / ("valid" if name == "val" else name)
        folder.mkdir(exist_ok=True)
        write_yolo(root / name, folder / "labels", path)
        (folder / "images").mkdir()
        for picture in (root / name).glob("*.png"):
            picture.rename(folder / "images" / picture.name)
    (root / "classes.txt").write_text("\n".join(CLASSES.values()))


def make_years(root: Path, jsons: dict[str, Path]) -> None:
    """VOC in folders that hold more than the name of a split."""
    make_voc(root, jsons)
    for name in jsons:
        (root / name).rename(root / f"{name}2017")


def make_ultralytics(root: Path, jsons: dict[str, Path]) -> None:
    """YOLO as its own tools have it: folders with years, and a yaml that names them."""
    make_yolo(root, jsons)
    for kind, name in product(("images", "labels"), jsons):
        (root / kind / name).rename(root / kind / f"{name}2017")
    with (root / "data.yaml").open("a") as file:
        file.write("path: /elsewhere\n" + "".join(f"{name}: ../images/{name}2017\n" for name in jsons))


def make_yolo_lists(root: Path, jsons: dict[str, Path]) -> None:
    """YOLO in one folder, its splits listed in text files, one of them in two."""
    make_yolo(root, jsons)
    said = {}
    for name in jsons:
        pictures = sorted((root / "images" / name).iterdir())
        halves = {f"{name}.txt": pictures[::2], f"more_{name}.txt": pictures[1::2]}
        for file, half in halves.items():
            (root / file).write_text("".join(f"./images/{picture.name}\n" for picture in half))
        for kind in ("images", "labels"):
            for path in (root / kind / name).iterdir():
                path.rename(root / kind / path.name)
            (root / kind / name).rmdir()
        said[name] = [*halves]
    with (root / "data.yaml").open("a") as file:
        file.write("".join(f"{name}: {files}\n" for name, files in said.items()))


LAYOUTS = [
    *(make_coco, make_roboflow, make_voc, make_vocdevkit, make_years),
    *(make_yolo, make_yolo_inside, make_ultralytics, make_yolo_lists),
]


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train", "val"), ("train", "test")])
@pytest.mark.parametrize("make", LAYOUTS)
def test_layouts_are_read_alike_and_converted_without_loss(
    make: Callable[[Path, dict[str, Path]], None], splits: tuple[str, ...], tmp_path: Path
) -> None:
    counts = {"train": 12, "val": 3, "test": 4}
    expected: dict[str, Any] = {}
    jsons = parts(tmp_path / "data", {name: counts[name] for name in splits})
    for path in jsons.values():
        data = json.loads(path.read_text())
        for image in data["images"]:
            mine = [a for a in data["annotations"] if a["image_id"] == image["id"]]
            expected[image["file_name"]] = sorted(
                (CLASSES[a["category_id"]], tuple(round(float(v), 2) for v in a["bbox"])) for a in mine
            )
    make(tmp_path / "data", jsons)
    data = load_data(tmp_path / "data", ["all"], 0)
    assert objects(data) == expected and not problems.faults(data.problems) and not data.masks
    own_val = splits == ("train", "val", "test")
    assert len(data.train) == (12 if own_val else 11) and len(data.val) == (3 if own_val else 1)
    assert {name: len(scans) for name, scans in data.tests.items()} == {"test": counts[splits[-1]]}
    assert set(data.classes.values()) == set(CLASSES.values())
    on_val = load_data(tmp_path / "data", ["all"], 0, on="val")
    assert [scan.path for scan in on_val.tests["val"]] == [scan.path for scan in data.val]
    only = load_data(tmp_path / "data", [], 0, eval_only=True)
    assert only.tests == data.tests and not only.train and not only.val and not only.sizes

    assert not problems.faults(convert(tmp_path / "data", tmp_path / "coco"))
    names = {file.name for file in (tmp_path / "coco" / "annotations").iterdir()}
    assert names == {f"{name}.json" for name in (splits if own_val else ("train", "test"))}
    for file in (tmp_path / "coco" / "annotations").iterdir():
        coco = COCO(str(file))
        assert len(coco.imgs) == counts[file.stem if own_val or file.stem == "train" else splits[-1]]
        assert all((tmp_path / "coco" / "images" / image["file_name"]).is_file() for image in coco.imgs.values())
    again = load_data(tmp_path / "coco", ["all"], 0)
    assert objects(again) == expected and set(again.classes.values()) == set(data.classes.values())
    assert [s.path.name for s in again.train] == [s.path.name for s in data.train] and again.sizes == data.sizes


def test_pidray_is_converted_with_its_masks_and_levels(pidray: Make, tmp_path: Path) -> None:
    folder = pidray(train=12, test=2)
    convert(folder, tmp_path / "coco")
    before, after = (load_data(path, ["all"], 0) for path in (folder, tmp_path / "coco"))
    assert list(after.tests) == list(before.tests) == ["easy", "hard", "hidden"] and after.masks
    for one, other in zip(before.train, after.train, strict=True):
        assert [(o.box, o.area, o.mask) for o in one.objects] == [(o.box, o.area, o.mask) for o in other.objects]
    with pytest.raises(click.ClickException, match="folder is not empty; name another --out"):
        convert(folder, tmp_path / "coco")


def test_journal_release_of_pidray(pidray: Make) -> None:
    folder = pidray(train=10, test=2)
    names = folder / "annotations"
    (names / "xray_train.json").rename(names / "train.json")
    shutil.copy(names / "xray_test_easy.json", names / "test.json")
    levels = load_data(folder, ["all"], 0)
    assert list(levels.tests) == ["easy", "hard", "hidden"], "test.json is these together"
    for level in ("easy", "hard", "hidden"):
        (names / f"xray_test_{level}.json").unlink()
    (folder / "easy").rename(folder / "test")
    assert {name: len(s) for name, s in load_data(folder, ["all"], 0).tests.items()} == {"test": 2}
    (names / "test.json").unlink()
    with pytest.raises(click.ClickException, match="no test split; expected xray_test_easy"):
        load_data(folder, ["all"], 0)


def test_sixray_with_its_lists(lone_json: Make) -> None:
    root = lone_json(scans=12)
    write_voc(root)
    (root / "images").rename(root / "JPEGImage")
    (root / "Annotation").mkdir()
    for path in (root / "JPEGImage").glob("*.xml"):
        path.rename(root / "Annotation" / path.name)
    stems = sorted(path.stem for path in (root / "JPEGImage").iterdir())
    for number in range(3):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (9, 9, 3), np.uint8)).resize((90, 90)).save(
            root / "JPEGImage" / f"N{number}.jpg"
        )
    (root / "Annotation" / f"{stems[9]}.xml").unlink()
    for folder, benign in (("10", ["N0"]), ("100", ["N0", "N1", "N2"])):
        (root / "ImageSet" / folder).mkdir(parents=True)
        for name, chosen in (("train", stems[:6]), ("test", [*stems[6:], "P9\x00\x1b[31m"])):
            rows = [f"{stem},1,-1" for stem in chosen] + [f"{stem},-1,-1" for stem in benign]
            (root / "ImageSet" / folder / f"{name}.csv").write_text("\n".join(["name,Gun,Knife", *rows]))
    data = load_data(root, ["all"], 0)
    assert len(data.train) == 6 and len(data.tests["test"]) == 6
    assert [scan.path.name for scan in data.tests["test"] if not scan.objects] == ["N0.jpg"]
    told = {(p.kind, p.file) for p in problems.faults(data.problems)}
    assert told == {(voc.NO_LABEL, f"JPEGImage/{stems[9]}.png"), (problems.MISSING, "P9??[31m")}
    assert len(load_data(root / "ImageSet" / "100", ["all"], 0).tests["test"]) == 8


def test_yolo_polygons_are_masks_and_missing_labels_are_background(tmp_path: Path) -> None:
    jsons = parts(tmp_path, {"train": 10, "test": 4})
    for name, path in jsons.items():
        write_yolo(tmp_path / name, tmp_path / name, path, polygons=True)  # beside the pictures
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES.values()))
    empty, missing = sorted((tmp_path / "test").glob("*.txt"))[:2]
    empty.write_text("")
    missing.unlink()
    data = load_data(tmp_path, ["all"], 0)
    assert data.masks and not data.problems
    assert [len(scan.objects) for scan in data.tests["test"]] == [0, 0, 2, 2]
    for thing in (thing for scan in data.train for thing in scan.objects):
        assert thing.mask and abs(thing.area - thing.box[2] * thing.box[3]) <= 0.1 * thing.area + 4
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(click.ClickException, match=r"no names of their classes; add a classes\.txt"):
        load_data(tmp_path, ["all"], 0)


@given(st.integers(0, 10**6), st.lists(st.floats(-1, 2), min_size=4, max_size=12).filter(lambda v: len(v) % 2 == 0))
def test_yolo_lines(number: int, shares: list[float]) -> None:
    assert yolo_line(f" {number}\t" + " ".join(map(repr, shares))) == (number, shares)


def test_a_yaml_is_taken_at_its_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_yolo(tmp_path, parts(tmp_path, {"train": 10, "val": 4}))
    names = (tmp_path / "data.yaml").read_text()
    (tmp_path / "other" / "images").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "other" / "images" / "a.png")
    (tmp_path / "none.txt").write_text("\n")

    def stating(**splits: str) -> Path:
        (tmp_path / "data.yaml").write_text(names + "".join(f"{name}: {where}\n" for name, where in splits.items()))
        return tmp_path / "data.yaml"

    for train, line in (
        ("[images/train, other/images]", "train: its pictures lie in several folders named images"),
        ("none.txt", "train: names no picture"),
    ):
        with pytest.raises(click.ClickException, match=line):
            find_layout(stating(train=train, val="images/val"))
    data = load_data(stating(train="images/val", val="images/train"), ["all"], 0)
    assert len(data.tests["test"]) == 10
    assert find_layout(stating(train="images/train", val="images/train")).splits.keys() == {LONE}
    assert len(load_data(stating(train="/gone", val="images/val"), ["all"], 0).tests["test"]) == 4  # as folders say
    assert not caplog.text
    assert len(load_data(stating(train="images/train", val="images/val", test="../gone"), ["all"], 0).train) == 9
    assert "data.yaml: test: ../gone: is not there; left out" in caplog.text
    shutil.rmtree(tmp_path / "images" / "val")
    with pytest.raises(click.ClickException, match="val: images/val: is not there; mend it"):
        find_layout(stating(train="images/train", val="images/val"))


def test_folders_that_would_go_unread_are_refused(tmp_path: Path) -> None:
    make_yolo(tmp_path, parts(tmp_path, {"train": 10, "more": 4}))
    with pytest.raises(click.ClickException, match="more: holds labels, but its name tells no split, as train does"):
        find_layout(tmp_path)


def test_other_names_of_classes_are_other_data(tmp_path: Path) -> None:
    make_yolo(tmp_path, parts(tmp_path, {"train": 10, "test": 4}))
    prints = {load_data(tmp_path, ["all"], 0).fingerprint}
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("  99: Whip\n")
    assert load_data(tmp_path, ["all"], 0).fingerprint not in prints


HOSTILE_LINES = {
    "0 0.5 0.5 nan 0.1": yolo.NO_NUMBER,
    "0 0.5 0.5 inf 0.1": yolo.NO_NUMBER,
    "0 0.5 0.5 -0.2 0.1": "box without area or outside the image",
    "0 0.5 0.5 0.1": yolo.NO_LINE,
    "0 0.5 0.5 0.1 0.1 0.9": yolo.NO_LINE,
    "0" + " 0.5" * 9: yolo.NO_LINE,
    "-1 0.5 0.5 0.1 0.1": yolo.NO_LINE,
    "²  0.5 0.5 0.1 0.1": yolo.NO_LINE,
    "Gun 0.5 0.5 0.1 0.1": yolo.NO_LINE,
    "3 0.5 0.5 0.1 0.1": yolo.NO_CLASS,
    "999999999 0.5 0.5 0.1 0.1": yolo.NO_CLASS,
    f"{'9' * 5000} 0.5 0.5 0.1 0.1": yolo.NO_LINE,
    "0 250 120 40 30": yolo.NO_SHARE,
    "0 1.2 0.5 1 0.1": "box mostly outside the image",
}


def test_hostile_yolo_lines_are_left_out_one_by_one(tmp_path: Path) -> None:
    jsons = parts(tmp_path / "data", {"train": 10, "test": 4})
    make_yolo(tmp_path / "data", jsons)
    label = next(iter(sorted((tmp_path / "data" / "labels" / "train").iterdir())))
    good = label.read_text()
    label.write_text("\n".join([*HOSTILE_LINES, good]))
    label.with_name("binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "data" / "labels" / "test" / "xray_test00000.txt").write_bytes(b"\xff\xfe\x00")
    data = load_data(tmp_path / "data", ["all"], 0)
    told = [p.kind for p in problems.faults(data.problems)]
    assert sorted(told) == sorted([*HOSTILE_LINES.values(), problems.MISSING, NO_TEXT])
    mine = next(s for s in (*data.train, *data.val) if s.path.stem == label.stem)
    assert len(mine.objects) == 2


@pytest.mark.parametrize(
    "content",
    [
        "names: [",
        "names: {{}}",
        "&a [*a]",
        "names: 5",
        "[" * 5000,
        "- " * 3000 + "x",
        "!!python/object:os.system {}",
        "\0",
    ],
)
def test_hostile_yaml_is_refused_in_a_line(content: str, tmp_path: Path) -> None:
    make_yolo(tmp_path, parts(tmp_path, {"train": 3, "test": 1}))
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(click.ClickException, match=r"not valid YAML|no names of their classes|is no text"):
        load_data(tmp_path, ["all"], 0)


BOMB = "<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE_XML = [
    f"{BOMB}]><annotation>&i;</annotation>",
    '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "<!DOCTYPE a [<!ENTITY gun 'Gun'>]><annotation><object><name>&gun;</name><bndbox>"
    "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>",
    "<annotation>" * 100_000,
    "<annotation><size><width>nan</width><height>inf</height></size></annotation>",
    "<annotation><size><width>1e300</width><height>1e300</height></size></annotation>",
    "<annotation><object/></annotation>",
    "<annotation><object><name>Gun</name><bndbox><xmin>one</xmin></bndbox></object></annotation>",
    "",
]


def test_hostile_xml_is_left_out_file_by_file(lone_json: Make) -> None:
    folder = lone_json(scans=20)
    write_voc(folder)
    labels = sorted((folder / "images").glob("*.xml"))
    for path, content in zip(labels, HOSTILE_XML, strict=False):
        path.write_text(content)
    text = labels[10].read_text()
    labels[10].write_text(text.replace("<xmin>", "<xmin>nan").replace("<xmin>nan", "<xmin>1e999</xmin><xmin>", 1))
    labels[11].write_text(text.replace("<width>104", "<width>90").replace("<object>", "<object><!-- ]]> -->", 1))
    labels[12].unlink()
    data = load_data(folder, ["all"], 0)
    files = {p.file.rsplit("/", 1)[-1] for p in problems.faults(data.problems)}
    assert {path.name for path in labels[: len(HOSTILE_XML)]} <= files
    assert len(data.train) + len(data.val) + len(data.tests["test"]) >= 20 - len(HOSTILE_XML) - 4
    assert [p.record for p in data.problems if p.kind == problems.UNLISTED] == [""]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../secret.png",
        "a/../../secret.png",
        "..\\secret.png",
        "x\ny.png",
        "\0",
        "\ud800.png",
        "a" * 5000,
        " ",
    ],
)
def test_file_names_that_lead_elsewhere_are_refused(name: str, lone_json: Make) -> None:
    folder = lone_json(scans=10)
    Image.new("RGB", (104, 96)).save(folder.parent / "secret.png")
    data = json.loads((folder / "annotations.json").read_text())
    data["images"][0]["file_name"] = name
    (folder / "annotations.json").write_text(json.dumps(data))
    loaded = load_data(folder, ["all"], 0)
    found = [p for p in problems.faults(loaded.problems) if p.kind.startswith("image")]
    assert len(found) == 1 and len(found[0].where()) < 400 and len(found[0].where().splitlines()) == 1
    assert len(loaded.train) + len(loaded.val) + len(loaded.tests["test"]) == 9


@pytest.mark.parametrize(
    "content",
    ["[" * 100_000, '{"images": ' + "[" * 100_000, "{", "", "\xff", '{"images": [], "annotations": 3}', "1" * 9999],
)
def test_a_hostile_test_json_is_told_beside_other_faults(content: str, pidray: Make) -> None:
    folder = pidray(train=3, test=1)
    (folder / "annotations" / "xray_test_easy.json").write_bytes(content.encode("latin-1"))
    hard = folder / "annotations" / "xray_test_hard.json"
    data = json.loads(hard.read_text())
    data["categories"][0]["name"] = "Bomb"
    hard.write_text(json.dumps(data))
    with pytest.raises(click.ClickException) as told:
        load_data(folder, ["all"], 0)
    first, *lines = told.value.message.splitlines()
    assert str(folder) in first and len(lines) >= 2 and len(told.value.message) < 1000
    assert "annotations/xray_test_easy.json: " in lines[0]
    assert any(
        preflight.OTHER_CATEGORIES in line and preflight.FATAL[preflight.OTHER_CATEGORIES] in line for line in lines
    )


def test_hostile_records_are_left_out(lone_json: Make) -> None:
    folder = lone_json(scans=12)
    path = folder / "annotations.json"
    data = json.loads(path.read_text())
    odd: list[Any] = [
        None,
        [],
        {},
        "x",
        10**400,
        -1,
        2**63,
        1e308,
        float("nan"),
        float("inf"),
        True,
        "\ud800",
        {"a": [1]},
    ]
    for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"):
        data["annotations"] += [{**data["annotations"][0], key: value} for value in odd]
    for key in ("id", "file_name", "width", "height"):
        data["images"] += [{**data["images"][0], "id": f"{key}{n}", key: value} for n, value in enumerate(odd)]
    data["categories"] += [{"id": 50, "name": value} for value in odd] + [{"id": value, "name": "Bow"} for value in odd]
    for part in ("images", "annotations", "categories"):
        data[part] += odd
    path.write_text(json.dumps(data))
    loaded = load_data(folder, ["all"], 0)
    assert {
        "annotation of an image that the file does not list",
        "annotation of an unknown category",
        "annotation whose iscrowd, ignore or difficult is neither 0 nor 1",
        "category without an id or name, or whose id another has",
        "category whose name is not a line of text",
        "image entry of an impossible size",
        "image entry whose width or height is no whole number",
        "image entry without id or file_name",
        problems.MISSING,
    } <= {p.kind for p in loaded.problems}
    scans = [*loaded.train, *loaded.val, *loaded.tests["test"]]
    assert set(range(12)) <= {scan.source_id for scan in scans}, "what is beside them is kept"
    kept = truth(scans, loaded.classes)
    for thing in kept["annotations"]:
        x, y, w, h = thing["bbox"]
        assert 0 <= x < x + w <= 104 and 0 <= y < y + h <= 96 and 0 < thing["area"] <= 104 * 96
        assert thing["category_id"] in loaded.classes
    json.dumps(kept, allow_nan=False)
    json.dumps([p.as_dict() for p in loaded.problems])
    "".join(preflight.describe(loaded.problems)).encode()


def test_the_fingerprint_tells_labels_and_pictures_but_not_the_place(wide: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(wide, folder)
    told = [load_data(path, [], 0, eval_only=True).fingerprint for path in (wide, folder)]
    (folder / "easy" / "xray_easy00000.png").write_bytes(b"x")
    told.append(load_data(folder, [], 0, eval_only=True).fingerprint)
    assert told[0] == told[1] != told[2]


def test_folders_of_one_split_are_not_mixed(pidray: Make, tmp_path: Path) -> None:
    source = pidray(train=4, test=2)
    for name, json_name in (("train", "xray_train"), ("val", "xray_test_easy"), ("test", "xray_test_hard")):
        part = tmp_path / "parts" / name
        shutil.copytree(source / {"val": "easy", "test": "hard"}.get(name, name), part)
        shutil.copy(source / "annotations" / f"{json_name}.json", part / "labels.json")
    (tmp_path / "parts" / "trainval").mkdir()
    shutil.copy(tmp_path / "parts" / "train" / "labels.json", tmp_path / "parts" / "trainval")
    layout = find_layout(tmp_path / "parts")
    assert {name: split.file.parent.name for name, split in layout.splits.items()} == {
        **{"train": "train", "val": "val", "test": "test"}
    }
    shutil.copytree(tmp_path / "parts" / "val", tmp_path / "parts" / "valid")
    with pytest.raises(click.ClickException, match="valid: is of the split val, as is val; keep one of them"):
        find_layout(tmp_path / "parts")


def test_one_order_of_classes_whichever_json_is_read_last(pidray: Make) -> None:
    folder = pidray(train=4, test=2)
    file = folder / "annotations" / "xray_test_hidden.json"
    labels = json.loads(file.read_text())
    labels["categories"].reverse()
    file.write_text(json.dumps(labels))
    trained, scored = load_data(folder, ["all"], 0), load_data(folder, [], 0, eval_only=True)
    assert list(trained.classes) == list(scored.classes) == sorted(trained.classes)


def test_which_split_a_name_tells() -> None:
    told = {
        **{"xray_train": "train", "xray_test_easy": "easy", "instances_val2017": "val", "hidden": "hidden"},
        **{
            "test": "test",
            "annotations_trainval": "train",
            "image_info_test-dev2017": "dev",
            "test_annotations": "test",
            "easy_test": "easy",
            "scans": "",
            "latest": "",
        },
    }
    assert {name: split_name(name) for name in told} == told


def test_what_is_no_data_set_or_several_is_told(lone_json: Make, tmp_path: Path) -> None:
    folder = lone_json(scans=3)
    assert list(find_layout(folder).splits) == [LONE] and find_layout(folder).root == folder
    shutil.copy(folder / "annotations.json", folder / "other.json")
    with pytest.raises(
        click.ClickException, match=r"several json files \(annotations\.json, other\.json\); name the one"
    ):
        find_layout(folder)
    for name in ("train_a", "train_b"):
        shutil.copy(folder / "annotations.json", folder / f"{name}.json")
    with pytest.raises(click.ClickException, match="both of the split train; keep one"):
        find_layout(folder)
    (tmp_path / "tests_only" / "annotations").mkdir(parents=True)
    shutil.copy(folder / "annotations.json", tmp_path / "tests_only" / "annotations" / "test.json")
    shutil.copytree(folder / "images", tmp_path / "tests_only" / "images")
    with pytest.raises(click.ClickException, match=r"no training split; .*--eval-only"):
        load_data(tmp_path / "tests_only", ["all"], 0)
    assert len(load_data(tmp_path / "tests_only", [], 0, eval_only=True).tests["test"]) == 3


def test_real_yolo_labels_agree_with_their_coco_json(scans: Path, tmp_path: Path) -> None:
    source = scans / "pidray_boxes"
    for name in ("images", "labels"):
        (tmp_path / name).symlink_to(source / name)
    shutil.copy(source / "classes.txt", tmp_path)
    coco, text = (load_data(path, [], 0, eval_only=True) for path in (source, tmp_path))
    assert text.classes == coco.classes and len(text.classes) == 12
    by_name = {scan.path.name: scan for scan in text.tests["test"]}
    assert len(by_name) == len(coco.tests["test"]) == 12
    for scan in coco.tests["test"]:
        ours = by_name[scan.path.name].objects
        assert [o.category_id for o in ours] == [o.category_id for o in scan.objects]
        for one, other in zip(ours, scan.objects, strict=True):
            assert np.abs(np.subtract(one.box, other.box)).max() < 0.02
    beside = load_data(source / "labels", [], 0, eval_only=True).tests["test"]  # the folder's own name says YOLO
    assert [scan.objects for scan in beside] == [scan.objects for scan in text.tests["test"]]


def test_real_boxes_of_four_scanners(scans: Path) -> None:
    data = load_data(scans / "xray6dom_boxes", ["20%", "all"], 0)
    groups = [data.train, data.val, data.tests["test"]]
    names = [name_below(scan.path, data.root) for group in groups for scan in group]
    assert len(names) == len(set(names)) == 67 and len(data.tests["test"]) == 27 and data.sizes["20pct"] == 7
