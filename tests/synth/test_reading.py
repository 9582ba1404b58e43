"""How strangers write labels, kind by kind: read where it leaves no doubt, told by name where it does."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segloc_eval.cli import command as eval_command
from segloc_eval.data.datasets import Data, load_data
from segloc_synth.bank.labelled import read_labelled
from segloc_synth.bank.merging import read_labelled_all, read_names
from segloc_synth.cli import cli
from segloc_synth.sources.images import BadImage, read_image, upright_size
from segloc_synth.sources.layouts.yolo import yolo_line
from segloc_synth.sources.lists import Pictures
from segloc_synth.sources.masks import is_interpolated
from segloc_synth.sources.rules import read_annotation
from segloc_synth.sources.text import BadLabel, decoded
from segloc_synth.sources.values import flag, identity, numbers, whole

SIDES = (48, 40)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # what a viewer does for each EXIF orientation
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored),
}


def check(path: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["check", str(path), "--workers", "1", *options])


def run_eval(*args: object) -> Result:
    return CliRunner().invoke(eval_command, [str(arg) for arg in args])


def draw(path: Path, seed: int = 0, size: tuple[int, int] = SIDES) -> np.ndarray:
    """A picture of noise, which is like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def thing(place: int, image: int, **more: Any) -> dict[str, Any]:
    polygon = [6, 5, 22, 5, 22, 19, 6, 19]
    return {"id": place, "image_id": image, "category_id": 1, "bbox": [6, 5, 16, 14], "segmentation": [polygon], **more}


def coco(file: Path, pictures: dict[int, str], *annotations: dict[str, Any], **image: Any) -> Path:
    """A COCO json of pictures of 48 x 40 pixels by id, with a gun in each where no annotations are given."""
    images = [{"id": id, "file_name": name, "width": 48, "height": 40, **image} for id, name in pictures.items()]
    things = list(annotations) or [thing(id, id) for id in pictures]
    file.parent.mkdir(parents=True, exist_ok=True)
    value = {"images": images, "annotations": things, "categories": [{"id": 1, "name": "gun"}]}
    file.write_text(json.dumps(value))
    return file


def yolo(root: Path, lines: list[str], images: str = "images", labels: str = "labels") -> Path:
    for number, line in enumerate(lines):
        draw(root / images / f"{number}.png", number)
        (root / labels).mkdir(exist_ok=True)
        (root / labels / f"{number}.txt").write_text(line)
    (root / "classes.txt").write_text("gun\nknife\n")
    return root


def masks(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        draw(root / "images" / f"{name}.png", number)
        values = np.zeros(SIDES[::-1], np.uint8)
        values[5:20, 6:30] = 1
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(values).save(root / "masks" / f"{name}.png")
    (root / "classes.txt").write_text("gun\n")
    return root


# Lists


NAMES = ["scan1", "scan2", "bag (3)", "bag 4", "two.parts", "UPPER"]
STYLES: dict[str, Callable[[str], str]] = {
    "stem": lambda name: name,
    "file": lambda name: f"{name}.png",
    "other extension": lambda name: f"{name}.JPG",
    "folder": lambda name: f"images/{name}.png",
    "other machine": lambda name: f"C:\\data\\images\\{name}.png",
    "absolute": lambda name: f"/home/me/set/images/{name}.png",
    "two columns": lambda name: f"/images/{name}.png /masks/{name}.png",
    "tab": lambda name: f"{name}.png\tmasks/{name}.png",
    "flag": lambda name: f"{name} 1",
    "far flag": lambda name: f"{name}  -1",
    "quoted": lambda name: f'"{name}"',
    "comma": lambda name: f"{name}.png,1,0",
    "step": lambda name: f"./images/{name}.png",
}


LISTS = [
    *("ImageSets/Segmentation/test.txt", "ImageSets/Main/test.txt", "ImageSets/Segmentation/gun_test.txt"),
    *("ImageSets/10/test.csv", "test.txt", "test_list.txt", "my-test.csv", "splits/test.lst"),
]


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(st.sampled_from(NAMES), min_size=1, max_size=5),
    st.sampled_from(list(STYLES)),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(LISTS),
    st.sampled_from(["\n", "\r\n", " ", "\t", "; "]),
)
def test_what_a_test_list_names_never_feeds_synthesis(
    tmp_path_factory: Any, held: set[str], style: str, encoding: str, where: str, end: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "listed"
    if not root.exists():
        masks(root, NAMES)
    (root / where).parent.mkdir(parents=True, exist_ok=True)
    text = end.join(STYLES[style](name) for name in sorted(held)) + end
    (root / where).write_bytes(text.encode(encoding))
    source = read_labelled(root)
    every = read_labelled(root, allow_test=True)
    (root / where).unlink()
    assert {scan.path.stem for scan in source.scans} == set(NAMES) - held
    told = {Path(p.file).stem for p in source.problems if p.kind == "scan of the test split"}
    assert told == held
    assert len(every.scans) == len(NAMES)


def test_a_list_that_names_nothing_is_refused_by_name(tmp_path: Path) -> None:
    root = masks(tmp_path / "set", NAMES)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "test.txt").write_text("0001\n0002\n")
    result = check(root)
    assert result.exit_code == 1
    assert "Main/test.txt: none of its lines names a picture of the data set (the first: '0001')" in result.output
    (root / "ImageSets" / "Main" / "test.txt").write_bytes("刀具\n".encode("gbk"))
    result = check(root)
    assert (result.exit_code, "test.txt: is no text in UTF-8; save it in that encoding" in result.output) == (1, True)


ALONE = [style for style in STYLES if style not in ("tab", "two columns", "flag", "far flag")]


@given(st.sampled_from(NAMES), st.sampled_from(ALONE))
def test_an_entry_means_the_picture_whose_path_it_ends(name: str, style: str) -> None:
    pictures = Pictures([f"images/{other}.png" for other in NAMES] + [f"other/{other}.png" for other in NAMES])
    entry = STYLES[style](name).partition(",")[0]
    expected = {f"images/{name}.png"} if "images" in entry else {f"images/{name}.png", f"other/{name}.png"}
    assert set(pictures.find(entry)) == expected


# Text


def test_text_is_read_by_its_mark_or_declaration_else_as_utf8_and_never_guessed() -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert decoded("枪\r\n".encode(encoding)) == "枪\r\n"
    xml = '<?xml version="1.0" encoding="GBK"?><annotation>枪</annotation>'
    assert decoded(xml.encode("gbk")) == xml
    for content in ("刀具".encode("gbk"), "gun".encode("utf-16-le"), b"\xff\xfe\x00", b'<?xml encoding="rot13"?>'):
        with pytest.raises(BadLabel, match="no text in UTF-8"):
            decoded(content)


@pytest.mark.parametrize("file", ["classes.txt", "data.yaml", "labels/0.txt"])
def test_a_text_in_another_encoding_is_refused_or_left_out_by_name(tmp_path: Path, file: str) -> None:
    root = yolo(tmp_path / "set", ["0 .5 .5 .2 .2"] * 3)
    said = {
        "classes.txt": "剪刀\n刀具\n",
        "data.yaml": "names: [剪刀, 刀具]\n",
        "labels/0.txt": "# 刀具\n0 .5 .5 .2 .2\n",
    }[file]
    (root / file).write_bytes(said.encode("gbk"))
    told = run_eval("convert", root, "--out", tmp_path / "out"), check(root, "--masks-from-boxes")
    assert all("no text in UTF-8" in result.output and Path(file).name in result.output for result in told)
    assert [result.exit_code for result in told] == ([0, 1] if file == "labels/0.txt" else [1, 1])
    (root / file).write_bytes(said.encode("utf-16"))
    if file != "labels/0.txt":
        assert set(load_data(root, ["all"], 0).classes.values()) == {"剪刀", "刀具"}


def test_lists_hold_names_of_files_in_any_encoding(tmp_path: Path) -> None:
    for number, name in enumerate([b"b\xe9.png", b"\xff.png", b"c.png"] + [b"%d.png" % n for n in range(20)]):
        path = tmp_path / "set" / "images" / os.fsdecode(name)
        draw(path, number)
    root = tmp_path / "set"
    names = [path.name for path in sorted((root / "images").iterdir(), key=str)]
    coco(root / "a.json", dict(enumerate(names)))
    result = run_eval("labels", root, "--labels", "all", "--out", tmp_path / "lists")
    assert result.exit_code == 0, result.output
    listed = read_names(tmp_path / "lists" / "labels-all.txt")
    chosen = read_labelled_all([root], images=listed)[0].scans
    assert {f"./images/{scan.path.name}" for scan in chosen} == set(listed)
    assert {"b\udce9.png", "\udcff.png"} & {scan.path.name for scan in chosen}


# Orientation


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("size", [(48, 40), (40, 40)])
def test_pictures_are_used_as_their_exif_tag_turns_them(tmp_path: Path, turn: int, size: tuple[int, int]) -> None:
    stored = draw(tmp_path / "a.png", size=size)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    upright = TURNS[turn](stored)
    pixels, kinds = read_image(tmp_path / "a.png")
    assert np.array_equal(pixels, upright) and upright_size(tmp_path / "a.png") == upright.shape[1::-1]
    assert kinds == ([] if turn == 1 else ["image turned upright by its EXIF tag"])
    assert np.array_equal(read_image(tmp_path / "a.png", expect=upright.shape[1::-1])[0], upright)
    if stored.shape != upright.shape:  # labels that state the size as stored describe that
        assert np.array_equal(read_image(tmp_path / "a.png", expect=stored.shape[1::-1])[0], stored)
    with pytest.raises(BadImage, match="another size"):
        read_image(tmp_path / "a.png", expect=(7, 9))


def test_labels_of_turned_pictures_are_those_of_upright_ones(tmp_path: Path) -> None:
    """YOLO's tools obey the tag: a data set with tags is that of the same pictures stored upright."""
    upright, tagged = (yolo(tmp_path / name, ["0 .3 .4 .2 .3"] * 4) for name in ("upright", "tagged"))
    for path in (tagged / "images").iterdir():
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(np.asarray(Image.open(path))[::-1, ::-1]).save(path, exif=exif)

    def seen(data: Data) -> list[Any]:
        scans = [*data.train, *data.val, *data.tests["test"]]
        return sorted((s.path.name, [o.box for o in s.objects], read_image(s.path)[0].tobytes()) for s in scans)

    assert seen(load_data(upright, ["all"], 0)) == seen(load_data(tagged, ["all"], 0))
    result = run_eval("labels", tagged, "--labels", "all", "--out", tmp_path / "lists")
    assert result.exit_code == 0 and "4 used: image turned upright by its EXIF tag" in result.output


# Values


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"bbox": ["6", "5.0", 16, "14"], "image_id": "0", "category_id": "1", "iscrowd": "0"}, ""),
        ({"segmentation": [["6", "5", 22, 5, 22, 19, 6, 19]], "area": "224"}, ""),
        ({"segmentation": [6, 5, 22, 5, 22, 19, 6, 19]}, ""),
        ({"segmentation": [[]]}, ""),
        ({"category_id": 1.0, "image_id": 0.0}, ""),
        ({"category_id": True}, "annotation of an unknown category"),
        ({"category_id": [1]}, "annotation of an unknown category"),
        ({"iscrowd": [0]}, "annotation whose iscrowd, ignore or difficult is neither 0 nor 1"),
        ({"bbox": [6, 5, True, 14], "segmentation": None}, "box that is no list of four numbers"),
        ({"bbox": "6 5 16 14", "segmentation": []}, "box that is no list of four numbers"),
        ({"bbox": None, "segmentation": []}, "annotation without mask or box"),
        ({"bbox": [90, 5, 16, 14]}, "box without area or outside the image"),
        ({"bbox": [40, 5, 90, 14], "segmentation": []}, "box mostly outside the image"),
        ({"segmentation": [[6, 5, "x", 5, 22, 19]]}, "polygon that is no list of numbers"),
    ],
)
def test_values_of_a_wrong_type_are_read_where_they_leave_no_doubt(
    tmp_path: Path, changes: dict[str, Any], kind: str
) -> None:
    file = coco(tmp_path / "a.json", {0: "a.png", 1: "b.png"}, thing(1, 0) | changes, thing(2, 1))
    for number, name in enumerate("ab"):
        draw(tmp_path / f"{name}.png", number)
    result = check(file, "--masks-from-boxes", "--min-trust", "0", "--json")
    told = json.loads(result.stdout)["problems"]
    assert [one["kind"] for one in told if one["fate"] == "skipped" and "box in which" not in one["kind"]] == (
        [kind] if kind else []
    )
    objects = [one for scan in load_data(file, [], 0, eval_only=True).tests["test"] for one in scan.objects]
    assert len(objects) == (1 if kind else 2)
    assert all(np.abs(np.subtract(one.box, (6, 5, 16, 14))).max() < 2 for one in objects)


@given(st.integers(-(2**31), 2**31), st.integers(1, 4))
def test_numbers_as_text_are_those_numbers(value: int, count: int) -> None:
    assert identity(value) == identity(str(value)) == identity(float(value)) == value
    assert whole(value) == whole(str(value)) == whole(float(value)) == value
    assert numbers([str(value)] * count) == [value] * count
    assert identity(f"0{abs(value)}") == f"0{abs(value)}", "a name, not a number"


def test_what_leaves_doubt_is_no_value() -> None:
    assert [whole(x) for x in (True, 1.5, "x", None, [1], float("nan"), 10**400)] == [None] * 7
    assert [flag(x) for x in (None, 0, 1, "0", "true", False)] == [False, False, True, False, True, False]
    assert [flag(x) for x in ([0], "maybe", 2)] == [None] * 3
    assert [identity(x) for x in (True, None, [], 1.5)] == [None] * 4


@given(*(st.floats(-60, 60) for _ in range(2)), *(st.floats(0.5, 120) for _ in range(2)))
def test_a_box_is_cut_at_the_edge_or_left_out_whatever_it_comes_from(x: float, y: float, w: float, h: float) -> None:
    record = {"category_id": 1, "bbox": [x, y, w, h]}
    inside = max(0, min(48, x + w) - max(0, x)) * max(0, min(40, y + h) - max(0, y))
    try:
        found, notes = read_annotation("1", record, {1: 1}, *SIDES)
    except BadLabel:
        assert inside < 0.5 * w * h + 1e-6
        return
    assert found.box is not None
    left, top, width, height = found.box
    assert 0 <= left < left + width <= 48 + 1e-9 and 0 <= top < top + height <= 40 + 1e-9
    assert width * height == pytest.approx(inside)
    assert bool(notes) == (max(-x, -y, x + w - 48, y + h - 40) > 2)


# Masks


def shapes(seed: int, bars: float = 0.5) -> np.ndarray:
    """A class-id picture of a few discs and bars of three classes, some of which touch or cover each other."""
    rng = np.random.default_rng(seed)
    values = np.zeros((90, 110), np.uint8)
    for _ in range(rng.integers(1, 6)):
        x, y = rng.integers(10, 80, 2).tolist()
        colour = int(rng.integers(1, 4))
        if rng.random() >= bars:
            cv2.circle(values, (x, y), int(rng.integers(5, 20)), colour, -1)
        else:
            cv2.rectangle(values, (x, y), (x + int(rng.integers(4, 40)), y + int(rng.integers(4, 12))), colour, -1)
    return values


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 20, 80]))
def test_masks_that_were_interpolated_are_told_from_those_that_were_not(seed: int, step: int) -> None:
    values = shapes(seed) * np.uint8(step)
    assert not is_interpolated(values)
    discs = shapes(seed, bars=0) * np.uint8(step)  # a bar's sides may fall on those of pixels
    if step > 1:
        assert is_interpolated(cv2.resize(discs, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_LINEAR))


def test_masks_resized_or_saved_as_jpeg_are_told_instead_of_believed(tmp_path: Path) -> None:
    root = masks(tmp_path / "set", ["a", "b"])
    (root / "classes.txt").unlink()
    for name in "ab":
        path = root / "masks" / f"{name}.png"
        Image.fromarray(np.asarray(Image.open(path)) * 100).resize((24, 20), Image.Resampling.BILINEAR).resize(
            SIDES, Image.Resampling.BILINEAR
        ).save(path)
    told = "mask with values between its classes, as resizing with interpolation or JPEG leave them"
    result = check(root)
    assert (result.exit_code, f"2 skipped: {told}" in result.output) == (1, True)
    for name in "ab":
        values = np.zeros(SIDES[::-1], np.uint8)
        cv2.circle(values, (20, 20), 12, 100, -1)
        (root / "masks" / f"{name}.png").unlink()
        Image.fromarray(values).save(root / "masks" / f"{name}.jpg", quality=80)
    assert "2 skipped: mask " in check(root).output


def test_boxes_that_do_not_meet_their_masks_are_told(tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", 1)
    mask = np.zeros(SIDES[::-1], np.uint8)
    mask[30:38, 4:12] = 1
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.ravel(), [2]])))).tolist()  # by rows
    rle = {"size": [40, 48], "counts": runs}
    file = coco(
        tmp_path / "a.json",
        {0: "a.png", 1: "b.png"},
        thing(1, 0, bbox=[30, 25, 10, 10]),
        thing(2, 1, bbox=[4, 30, 8, 8], segmentation=rle),
    )
    result = check(file)
    assert result.exit_code == 1
    assert "1 skipped: box and mask that do not meet: a annotation 1" in result.output
    assert "1 skipped: mask whose run lengths are counted by rows; COCO's are by columns: b" in result.output
    result = run_eval("labels", file, "--labels", "all", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "box and mask that do not meet" in result.output


# Where pictures and labels lie


@pytest.mark.parametrize(
    ("file", "pictures", "name"),
    [
        ("a.json", ".", "{}.png"),
        ("a.json", "images", "{}.png"),
        ("a.json", "images", "images\\{}.png"),
        ("labels.json", "data", "{}.png"),
        ("annotations/instances_train2017.json", "images/train2017", "{}.png"),
        ("annotations/instances_default.json", "images", "{}.png"),
        ("annotations/instances_default.json", "images/default", "{}.png"),
        ("annotations/person_val.json", "val", "{}.png"),
        ("a.json", "images", "/data/upload/3/{}.png"),
        ("a.json", "images", "C:\\Users\\me\\{}.png"),
        ("a.json", "images", "..\\..\\images\\{}.png"),
        ("a.json", "images/set", "/data/local-files/?d=set/{}.png"),
    ],
)
def test_pictures_of_a_coco_json_are_found_where_tools_put_them(
    tmp_path: Path, file: str, pictures: str, name: str
) -> None:
    path = coco(tmp_path / file, {id: name.format(id) for id in range(4)})
    for id in range(4):
        draw(tmp_path / pictures / f"{id}.png", id)
    for source in (path, tmp_path):
        assert len(read_labelled(source, allow_test=True).scans) == 4
        data = load_data(source, [], 0, eval_only=True)
        assert len(data.tests["test"]) == 4 and data.masks
    for picture in list(tmp_path.rglob("*.png")):
        picture.unlink()
    result = check(path, "--allow-test")
    where = "a file_name that is absolute or leads out" if name[0] in "/C." else "image file is missing"
    assert result.exit_code == 1 and where in result.output and ("looked in " in result.output or name[0] in "/C.")


def test_nothing_outside_the_folder_is_read_by_a_foreign_path(tmp_path: Path) -> None:
    draw(tmp_path / "secret.png")
    draw(tmp_path / "set" / "a.png")
    file = coco(tmp_path / "set" / "a.json", {0: "a.png", 1: "../secret.png", 2: str(tmp_path / "secret.png")})
    assert [scan.path.name for scan in read_labelled(file).scans] == ["a.png"]


def test_names_of_folders_and_extensions_are_read_in_any_case(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(3):
            draw(tmp_path / "yolo" / "Images" / split / f"{split}{number}.PNG", number)
            label = tmp_path / "yolo" / "Labels" / split / f"{split}{number}.TXT"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text("0 .5 .5 .2 .2")
    (tmp_path / "yolo" / "data.yaml").write_text("names: [gun]\ntrain: images/train\ntest: images/test\n")
    assert len(read_labelled(tmp_path / "yolo", masks_from_boxes=True).scans) == 3
    shutil.rmtree(tmp_path / "yolo" / "Labels")
    result = run_eval("convert", tmp_path / "yolo", "--out", tmp_path / "out")
    assert result.exit_code == 1 and "none of its pictures has a label; looked for NAME.txt in" in result.output
    draw(tmp_path / "voc" / "JPEGImages" / "a.png")
    box = "<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    (tmp_path / "voc" / "Annotations").mkdir()
    xml = f"<annotation><object><name>gun</name><difficult>1</difficult>{box}</object></annotation>"
    (tmp_path / "voc" / "Annotations" / "a.XML").write_text(xml)
    assert len(read_labelled(tmp_path / "voc", masks_from_boxes=True).scans) == 1


@pytest.mark.parametrize("name", ["a.jfif", "a.webp", "a.tiff"])
def test_pictures_of_other_extensions_and_of_several_pages(tmp_path: Path, name: str) -> None:
    pages = [Image.fromarray(np.full((40, 48, 3), 60 * n, np.uint8)) for n in range(1, 3)]
    (tmp_path / "images").mkdir()
    file = tmp_path / "images" / name
    how: dict[str, Any] = {"a.jfif": {"format": "JPEG"}, "a.webp": {"lossless": True}}
    pages[0].save(file, **how.get(name, {"save_all": True, "append_images": pages[1:]}))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .4 .4")
    (tmp_path / "classes.txt").write_text("gun")
    assert len(read_labelled(tmp_path, masks_from_boxes=True).scans) == 1
    told = check(tmp_path, "--masks-from-boxes").output
    assert ("image of several pages, its first page used" in told) == (name == "a.tiff")
    assert abs(int(read_image(file)[0].mean()) - 60) < 3


# Marks, and commands that could use nothing


def test_crowds_and_difficult_objects_are_passed_over_and_told(tmp_path: Path) -> None:
    pictures = {id: f"{id}.png" for id in range(6)}
    for id in pictures:
        draw(tmp_path / f"{id}.png", id)
    crowds = coco(tmp_path / "crowds.json", pictures, *(thing(id, id, iscrowd=1) for id in pictures))
    result = run_eval("labels", crowds, "--labels", "all", "--out", tmp_path / "a")
    assert result.exit_code == 1 and "6 objects are crowds (iscrowd 1) or difficult" in result.output
    result = check(crowds)
    assert result.exit_code == 1 and "nothing usable in it: crowd annotation" in result.output
    hard = coco(tmp_path / "hard.json", pictures, *(thing(id, id, ignore=int(id > 2)) for id in pictures))
    assert len(read_labelled(hard).scans) == 6, "they can be cut out"
    result = run_eval("convert", hard, "--out", tmp_path / "b")
    assert result.exit_code == 0 and "3 noted: difficult object, neither learnt nor scored" in result.output
    again = json.loads(next((tmp_path / "b" / "annotations").iterdir()).read_text())
    assert sum(one.get("ignore", 0) for one in again["annotations"]) == 3


def test_a_picture_that_may_not_be_read_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = coco(tmp_path / "a.json", {0: "a.png", 1: "b.png"})
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png", 1)
    open_picture = Image.open

    def refuse(path: Path) -> Image.Image:
        if path.name == "a.png":
            raise PermissionError(13, "Permission denied", str(path))
        return open_picture(path)

    monkeypatch.setattr(Image, "open", refuse)
    told = check(file)
    assert "1 skipped: image file may not be read: a" in told.output and told.exit_code == 1
    kinds = [problem.kind for problem in load_data(file, [], 0, eval_only=True).problems]
    assert kinds == ["image file may not be read"]


def test_a_command_that_could_use_nothing_fails(tmp_path: Path) -> None:
    file = coco(tmp_path / "a.json", {0: "a.png"})
    result = run_eval("convert", file, "--out", tmp_path / "out")
    assert result.exit_code == 1 and "no usable object (first problem: image file is missing: a.png" in result.output
    assert not (tmp_path / "out").exists()


def test_few_masks_cost_no_object(tmp_path: Path) -> None:
    pictures = {id: f"{id}.png" for id in range(8)}
    for id in pictures:
        draw(tmp_path / f"{id}.png", id)

    def masked(count: int) -> Path:
        things = (thing(i, i, **({} if i < count else {"segmentation": []})) for i in pictures)
        return coco(tmp_path / f"{count}.json", pictures, *things)

    data = load_data(masked(2), [], 0, eval_only=True)
    assert not data.masks and sum(len(scan.objects) for scan in data.tests["test"]) == 8
    many = masked(6)
    found = {boxes: load_data(many, [], 0, eval_only=True, boxes=boxes).tests["test"] for boxes in (False, True)}
    assert [sum(len(scan.objects) for scan in scans) for scans in found.values()] == [6, 8]


def test_a_pose_is_no_polygon() -> None:
    line = "0 .5 .5 .4 .4 .4 .4 2 .6 .6 1 .5 .5 0"
    assert yolo_line(line) == (0, [0.5, 0.5, 0.4, 0.4])
    assert yolo_line("0 .5 .5 .4 .4 .4 .4 .6 .6", pose=True) == (0, [0.5, 0.5, 0.4, 0.4])
    assert len(yolo_line("0 .1 .1 .4 .1 .4 .4 .1 .4")[1]) == 8
    assert len(yolo_line("0 .5 .5 .9 .5 .9 .9 1.0 .7 .6 1.0")[1]) == 10, "at the picture's edge"
