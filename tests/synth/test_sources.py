"""Labelled sources: every layout yields the objects that were drawn, lazily; several at once; test splits stay out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import cut_all, draw_scan, save, write_benign, write_labelled

from segloc_synth.bank.boxes import mask_from_box
from segloc_synth.bank.cutting import MARGIN
from segloc_synth.bank.labelled import read_labelled
from segloc_synth.bank.merging import limit_all, read_labelled_all, read_mapping
from segloc_synth.cli import cli
from segloc_synth.sources.images import BadImage, corrupt_rows, read_image

BLADE = [20, 20, 70, 24, 70, 32, 20, 34]


def draw_objects(folder: Path, count: int = 3) -> list[np.ndarray]:
    """Scans scan0.png ... with a dark blade (value 1) and two dark discs (value 2); returns the class-id masks."""
    folder.mkdir(parents=True)
    masks = []
    for number in range(count):
        scan = np.full((120, 140, 3), 255, np.uint8)
        scan[8:-8, 8:-8] = (236, 178, 110)
        mask = np.zeros(scan.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.array(BLADE).reshape(-1, 2)], 1)
        cv2.circle(mask, (50, 80), 12, 2, -1)
        cv2.circle(mask, (100, 80), 9, 2, -1)
        scan[mask > 0] = (30, 60, 90)
        save(folder / f"scan{number}.png", scan)
        masks.append(mask)
    return masks


def write_masks(root: Path, names: str | None = None) -> Path:
    masks = draw_objects(root / "images")
    (root / "masks").mkdir()
    for number, mask in enumerate(masks):
        Image.fromarray(mask).save(root / "masks" / f"scan{number}.png")
    if names is not None:
        (root / "classes.txt").write_text(names)
    return root


def boxes_of(mask: np.ndarray) -> list[tuple[int, tuple[int, int, int, int]]]:
    found = []
    for value in (1, 2):
        count, _, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8))
        found += [(value, tuple(stats[place][:4].tolist())) for place in range(1, count)]
    return found


def write_voc(root: Path, images: str = "JPEGImages", labels: str = "Annotations") -> Path:
    masks = draw_objects(root / images)
    (root / labels).mkdir(parents=True, exist_ok=True)
    for number, mask in enumerate(masks):
        objects = "".join(
            f"<object><name>{('', 'knife', 'Ball')[value]}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
            f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
            for value, (x, y, w, h) in boxes_of(mask)
        )
        (root / labels / f"scan{number}.xml").write_text(f"<annotation>{objects}</annotation>")
    return root


def write_opixray(root: Path, split: str) -> Path:
    masks = draw_objects(root / split / f"{split}_image")
    (root / split / f"{split}_annotation").mkdir()
    for number, mask in enumerate(masks):
        lines = [
            f"scan{number}.png {('', 'Straight_Knife', 'Ball')[value]} {x} {y} {x + w} {y + h}"
            for value, (x, y, w, h) in boxes_of(mask)
        ]
        (root / split / f"{split}_annotation" / f"scan{number}.txt").write_text("\n".join(lines) + "\n")
    (root / split / f"{split}_knife.txt").write_text("scan0\nscan1\nscan2\n")
    return root


def coco_boxes(root: Path) -> Path:
    masks = draw_objects(root / "images")
    annotations = [
        {"id": 10 * number + place, "image_id": number, "category_id": value, "bbox": list(box), "segmentation": []}
        for number, mask in enumerate(masks)
        for place, (value, box) in enumerate(boxes_of(mask))
    ]
    images = [{"id": n, "file_name": f"scan{n}.png", "width": 140, "height": 120} for n in range(len(masks))]
    categories = [{"id": 1, "name": "knife"}, {"id": 2, "name": "Ball"}]
    (root / "set.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


@pytest.fixture
def unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a picture is an error."""

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a picture was opened")

    monkeypatch.setattr(Image, "open", refuse)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("Knife\nBall\n", {11: "Knife", 13: "Ball"}),
        ("background\nknife\nBall\n", {11: "Knife", 13: "Ball"}),
        ("1: Knife\n2: Ball\n", {11: "Knife", 13: "Ball"}),
        ("# label:color_rgb:parts:actions\nbackground:0,0,0::\nKnife:1,1,1::\nBall:2,2,2::\n", None),
    ],
)
def test_class_id_masks_give_one_object_per_component(
    tmp_path: Path, names: str, expected: dict[int, str] | None
) -> None:
    source = read_labelled(write_masks(tmp_path / "set", names))
    assert source.kind == "masks"
    assert source.classes == (expected or {11: "Knife", 13: "Ball"})
    segments, problems = cut_all(source, 128, tmp_path)
    assert not problems
    assert [(name, segment.class_id) for name, segment in segments.items()][:3] == [
        ("scan0#1.1", 11),
        ("scan0#2.1", 13),
        ("scan0#2.2", 13),
    ]
    assert len(segments) == 9
    disc = segments["scan0#2.1"]
    assert disc.rgba.shape[:2] == pytest.approx((25 * disc.zoom * 128 / 140 + 2 * MARGIN,) * 2, abs=2)


def test_masks_without_names_have_numbers_for_names(tmp_path: Path, unopened: None) -> None:
    source = read_labelled(write_masks(tmp_path / "set"))
    assert source.classes[13] == "class 1"
    named = read_labelled_all([tmp_path / "set"], {"class 1": "knife", "class 2": None})[0]
    assert named.scans[0].mask is not None
    assert named.scans[0].mask.class_of[1] == 11
    assert 2 in named.scans[0].mask.left_out
    other = write_masks(tmp_path / "other")
    (other / "images" / "scan0.png").write_bytes(b"another size")
    with pytest.raises(click.ClickException, match="without names"):
        read_labelled_all([tmp_path / "set", other])
    one, two = read_labelled_all([tmp_path / "set", other], {"class 1": "knife"})
    assert one.classes == two.classes == {11: "Knife"}  # class 2 of the one is not that of the other


def test_what_is_wrong_with_a_mask_has_a_name(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "set", "knife\n")
    good = np.asarray(Image.open(root / "masks" / "scan0.png"))
    Image.fromarray(good[:50]).save(root / "masks" / "scan1.png")
    Image.fromarray(np.dstack([good * 100, good, good])).save(root / "masks" / "scan2.png")
    segments, problems = cut_all(read_labelled(root), 128, tmp_path)
    assert not segments
    assert [problem.kind for problem in problems] == [
        "mask value 2, which is no class",
        "mask of another size than its image",
        "mask in colours; pixel values must be class ids",
    ]


def test_a_mask_of_the_ignored_value_alone_is_told(tmp_path: Path) -> None:
    """As masks of 0 and 255 are beside a names file: taken for VOC's borders, they would be empty."""
    root = write_masks(tmp_path / "set", "knife\n")
    for path in (root / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    segments, problems = cut_all(read_labelled(root), 128, tmp_path)
    assert not segments
    assert {problem.kind for problem in problems} == {
        "mask of nothing but 255, which is no class but the border around objects"
    }


def test_vocs_masks_come_before_its_boxes(tmp_path: Path) -> None:
    root = write_masks(tmp_path / "set", "knife\nball\n")
    (root / "masks").rename(root / "SegmentationClass")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "scan0.xml").write_text("<annotation><filename>scan0.png</filename></annotation>")
    source = read_labelled(root)
    assert source.kind == "masks"
    assert len(cut_all(source, 128, tmp_path)[0]) == 9


@pytest.mark.parametrize("layout", ["voc", "sixray", "beside", "opixray", "coco"])
def test_boxes_need_leave_and_give_the_drawn_objects(tmp_path: Path, layout: str, monkeypatch: Any) -> None:
    root = tmp_path / "set"
    if layout == "opixray":
        write_opixray(write_opixray(root, "train"), "test")
    elif layout == "coco":
        coco_boxes(root)
    else:
        folders = {"voc": ("JPEGImages", "Annotations"), "sixray": ("JPEGImage", "Annotation"), "beside": (".", ".")}
        root.parent.mkdir(exist_ok=True)
        write_voc(root, *folders[layout]) if layout != "beside" else write_voc(root, "x", "x")
    with pytest.raises(click.ClickException, match=r"boxes without masks.*--masks-from-boxes"):
        read_labelled(root)
    with monkeypatch.context() as patch:
        if layout == "coco":  # the others do not state the sizes of pictures
            patch.setattr(Image, "open", None)
        source = read_labelled(root, masks_from_boxes=True)
    assert source.kind == {"coco": "coco", "opixray": "opixray"}.get(layout, "voc") + "+boxes"
    assert sorted(source.classes.values())[0] == "Ball"
    assert all(annotation.derived for scan in source.scans for annotation in scan.annotations)
    segments, problems = cut_all(source, 128, tmp_path)
    assert not problems
    assert len(segments) == 9
    assert all(name.endswith("~box") for name in segments)
    for scan in source.scans:
        pixels = read_image(scan.path)[0]
        truth = (pixels[..., 0] == 30).astype(np.uint8)
        for annotation in scan.annotations:
            derived = mask_from_box(pixels, annotation.box)
            assert derived is not None
            mask, trust = derived
            assert trust > 0.6
            x, y, w, h = (round(v) for v in annotation.box)
            inside = np.zeros_like(truth)
            inside[y : y + h, x : x + w] = truth[y : y + h, x : x + w]
            assert (mask & inside).sum() / (mask | inside).sum() > 0.85  # its outline may lie a pixel outside


@given(st.integers(0, 2**32 - 1), st.floats(0, 100), st.floats(0, 80), st.floats(1, 140), st.floats(1, 120))
@example(0, 0.0, 10.0, 12.0, 3.0)  # half a pixel thin
def test_a_derived_mask_never_leaves_its_box(seed: int, x: float, y: float, w: float, h: float) -> None:
    pixels = draw_scan(seed % 50)
    w, h = min(w, pixels.shape[1] - x), min(h, pixels.shape[0] - y)
    derived = mask_from_box(pixels, (x, y, w, h))
    if derived is not None:
        mask, trust = derived
        assert 0 <= trust <= 1
        assert mask.shape == pixels.shape[:2]
        left, top, width, height = cv2.boundingRect(mask)
        assert left >= x - 1 and top >= y - 1 and left + width <= x + w + 1 and top + height <= y + h + 1
        assert set(np.unique(mask)) == {0, 1}


def test_pictures_of_one_stem_are_joined_with_their_own_labels(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("a", "b", "JPEGImages/e", "JPEGImages/b/c"):
        draw_objects(root / name, 1)
    shutil.copytree(root / "a", root / "twice")
    shutil.copy(root / "a" / "scan0.png", root / "twice" / "scan0.jpg")
    for number, name in enumerate(("a", "b", "Annotations/e", "Annotations/b/c", "twice", "elsewhere")):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "scan0.xml").write_text(
            f"<annotation><object><name>class {number}</name><bndbox><xmin>20</xmin><ymin>20</ymin>"
            "<xmax>70</xmax><ymax>34</ymax></bndbox></object></annotation>"
        )
    source = read_labelled(root, masks_from_boxes=True)
    assert {scan.name: source.classes[scan.annotations[0].class_id] for scan in source.scans} == {
        "a/scan0": "class 0",
        "b/scan0": "class 1",
        "JPEGImages/e/scan0": "class 2",
        "JPEGImages/b/c/scan0": "class 3",
    }
    assert [(problem.kind, problem.file) for problem in source.problems] == [
        ("label file that fits several pictures", "elsewhere/scan0.xml"),
        ("label file that fits several pictures", "twice/scan0.xml"),
    ]


def test_nothing_stands_out_in_an_even_box() -> None:
    assert mask_from_box(np.full((60, 60, 3), 200, np.uint8), (10, 10, 30, 30)) is None


def test_voc_lists_of_the_test_split_are_left_out(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "test.txt").write_text("scan1\n")
    source = read_labelled(root, masks_from_boxes=True)
    assert [scan.name for scan in source.scans] == ["JPEGImages/scan0", "JPEGImages/scan2"]
    assert [problem.kind for problem in source.problems] == ["scan of the test split"]
    assert len(read_labelled(root, masks_from_boxes=True, allow_test=True).scans) == 3
    sixray = write_voc(tmp_path / "sixray", "JPEGImage", "Annotation")
    (sixray / "ImageSet" / "10").mkdir(parents=True)
    (sixray / "ImageSet" / "10" / "test.csv").write_text("name,Gun\nscan0,1\n")
    assert len(read_labelled(sixray, masks_from_boxes=True).scans) == 2


def test_test_splits_are_refused_in_one_line(tmp_path: Path) -> None:
    labelled = write_labelled(tmp_path / "set").parent
    shutil.copytree(labelled, tmp_path / "hidden")
    shutil.copytree(labelled, tmp_path / "named")
    (tmp_path / "named" / "set.json").rename(tmp_path / "named" / "my_test.json")
    shutil.copytree(labelled / "images", tmp_path / "upper" / "Test")
    shutil.copy(labelled / "set.json", tmp_path / "upper" / "Test" / "set.json")
    shutil.copytree(labelled, tmp_path / "latest")
    (tmp_path / "latest" / "set.json").rename(tmp_path / "latest" / "labels_latest.json")
    assert read_labelled(tmp_path / "latest").scans
    opixray = write_opixray(tmp_path / "opi", "test") / "test"
    masks = tmp_path / "easy"
    write_masks(masks, "knife\nball\n")
    for path in (tmp_path / "hidden", tmp_path / "named", tmp_path / "upper" / "Test", opixray, masks):
        with pytest.raises(click.ClickException, match=r"test split.*--allow-test") as error:
            read_labelled(path, masks_from_boxes=True)
        assert "\n" not in error.value.message
        assert str(path) in error.value.message
        assert read_labelled(path, masks_from_boxes=True, allow_test=True).scans
    pidray = tmp_path / "pidray"
    for split, name in (("train", "xray_train.json"), ("easy", "xray_test_easy.json")):
        (pidray / "annotations").mkdir(parents=True, exist_ok=True)
        shutil.copytree(labelled / "images", pidray / split)
        shutil.copy(labelled / "set.json", pidray / "annotations" / name)
    assert read_labelled(pidray).scans[0].name == "train/scan 0 (a)"
    train = pidray / "annotations" / "xray_train.json"
    assert {scan.name.partition("/")[0] for scan in read_labelled(pidray, allow_test=True).scans} == {"train", "easy"}
    assert {scan.name.partition("/")[0] for scan in read_labelled(train, allow_test=True).scans} == {"train"}
    easy = pidray / "annotations" / "xray_test_easy.json"
    with pytest.raises(click.ClickException, match="--allow-test"):
        read_labelled(easy)
    assert len(read_labelled(easy, allow_test=True).scans) == 6


def test_several_sources_share_classes_and_no_names(tmp_path: Path) -> None:
    first = write_labelled(tmp_path / "a" / "bags", 2).parent
    second = write_labelled(tmp_path / "b" / "bags", 3).parent
    masks = write_masks(tmp_path / "masks", "KNIFE\nball\n")
    sources = read_labelled_all([first, second, masks])
    assert [sorted(source.classes.items()) for source in sources] == [
        [(11, "Knife"), (13, "Ring")],
        [(11, "Knife"), (13, "Ring")],
        [(11, "Knife"), (14, "ball")],
    ]
    names = [scan.name for source in sources for scan in source.scans]
    assert names[0] == "bags/scan 0 (a)"
    assert names[2] == "bags-2/scan 0 (a)"
    assert names[-1] == "masks/scan2"
    assert len(set(names)) == len(names)
    segments, _ = cut_all(sources[2], 128, tmp_path)
    assert {segment.class_id for segment in segments.values()} == {11, 14}
    moved = tmp_path / "elsewhere"
    shutil.move(tmp_path / "a", moved)
    again = read_labelled_all([moved / "bags", second, masks])
    assert [source.fingerprint for source in again] == [source.fingerprint for source in sources]
    with pytest.raises(click.ClickException, match="twice"):
        read_labelled_all([second, second])


def test_a_mapping_renames_and_leaves_out(tmp_path: Path) -> None:
    source = write_labelled(tmp_path / "set").parent
    plain = read_labelled(source)
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"RING": "Gun", "knife": None}))
    mapped = read_labelled_all([source], read_mapping(file))[0]
    assert mapped.classes == {7: "Gun"}
    assert mapped.fingerprint != plain.fingerprint
    assert {a.class_id for scan in mapped.scans for a in scan.annotations} == {7}
    assert read_labelled_all([source])[0] == plain
    with pytest.raises(click.ClickException, match="no class 'pistol' in the sources, which have: Knife, Ring"):
        read_labelled_all([source], {"pistol": "Gun"})
    with pytest.raises(click.ClickException, match="leaves no class"):
        read_labelled_all([source], {"Ring": None, "Knife": None})
    for wrong in ("[]", "{}", '{"a": 1}', '{"a": " "}'):
        file.write_text(wrong)
        with pytest.raises(click.ClickException, match=r"classes\.json"):
            read_mapping(file)


def test_a_list_of_images_limits_the_objects(tmp_path: Path) -> None:
    source = read_labelled(write_labelled(tmp_path / "set"))
    names = ["scan 3 (a)", "scan 1 (a).png", "images/scan 0 (a).png", "/other/place/scan 3 (a).png"]
    (picked,) = limit_all([source], names)
    assert [scan.name for scan in picked.scans] == ["scan 0 (a)", "scan 1 (a)", "scan 3 (a)"]
    assert picked.fingerprint != source.fingerprint
    assert len(source.scans) == 6
    with pytest.raises(click.ClickException, match="no scan 'scan 9'"):
        limit_all([source], ["scan 3 (a)", "scan 9", "scan 10"])
    data = json.loads((tmp_path / "set" / "set.json").read_text())
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != 2]
    (tmp_path / "set" / "set.json").write_text(json.dumps(data))
    bare = read_labelled(tmp_path / "set")
    (picked,) = limit_all([bare], ["scan 2 (a).png", "scan 3 (a).png"])  # a scan without objects is no mistake
    assert len(picked.scans) == 1
    with pytest.raises(click.ClickException, match="none of the scans"):
        limit_all([bare], ["scan 2 (a)"])
    shutil.copy(tmp_path / "set" / "images" / "scan 3 (a).png", tmp_path / "set" / "images" / "scan 1 (a).jpg")
    data["images"].append(data["images"][1] | {"id": 9, "file_name": "scan 1 (a).jpg"})
    data["annotations"].append(data["annotations"][2] | {"id": 99, "image_id": 9})
    (tmp_path / "set" / "set.json").write_text(json.dumps(data))
    alike = read_labelled(tmp_path / "set")
    for name, count in (("scan 1 (a).jpg", 1), ("images/scan 1 (a).png", 1), ("scan 1 (a)", 2), ("scan 3 (a).jpg", 1)):
        assert len(limit_all([alike], [name])[0].scans) == count
    masks = read_labelled(write_masks(tmp_path / "masks", "knife\nball\n"))
    with pytest.raises(click.ClickException, match="leaves no class"):
        read_labelled_all([tmp_path / "masks"], {"knife": None, "ball": None})
    for path in (tmp_path / "masks" / "masks").iterdir():
        Image.fromarray(np.minimum(np.asarray(Image.open(path)), 1)).save(path)
    (without,) = read_labelled_all([tmp_path / "masks"], {"knife": None})
    assert cut_all(without, 128, tmp_path) == ({}, [])  # by design, no fault of the masks
    # of several sources with equal names a path tells which is meant
    two = [read_labelled(write_labelled(tmp_path / name, count)) for name, count in (("P", 2), ("Q", 3))]
    (picked,) = limit_all(two, [str(tmp_path / "Q" / "images" / "scan 0 (a).png"), "Q/images/scan 1 (a).png"])
    assert picked.path == two[1].path and len(picked.scans) == 2
    assert [len(source.scans) for source in limit_all(two, ["scan 0 (a)"])] == [1, 1]
    bare = replace(two[0], scans=two[0].scans[1:], others=[tmp_path / "P" / "images" / "scan 0 (a).png"])
    with pytest.raises(click.ClickException, match="none of the scans"):  # a picture without objects is meant
        limit_all([bare, two[1]], [str(tmp_path / "P" / "images" / "scan 0 (a).png")])
    assert [scan.name for scan in limit_all([masks], ["scan2.png"])[0].scans] == ["scan2"]


def test_a_build_of_several_sources(tmp_path: Path) -> None:
    objects = [write_labelled(tmp_path / "a").parent, coco_boxes(tmp_path / "b")]
    benign = write_benign(tmp_path / "benign")
    (tmp_path / "classes.json").write_text('{"ring": null}')
    (tmp_path / "images.txt").write_text("scan 0 (a)\nscan0\n")
    args = ["build", "--objects", objects[0], "--objects", objects[1], "--backgrounds", benign, "--n", 12]
    args += ["--out", tmp_path / "out", "--size", 96, "--workers", 1, "--masks-from-boxes"]
    args += ["--classes", tmp_path / "classes.json", "--images", tmp_path / "images.txt"]
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    assert "from 4 segments" in result.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [entry["name"] for entry in manifest["classes"]] == ["Knife", "Ball"]


def test_corrupt_rows_at_the_lower_edge_are_found(tmp_path: Path) -> None:
    scan = draw_scan(1)
    assert corrupt_rows(scan) == 0
    for rows in (1, 2, 4):
        spoilt = scan.copy()
        spoilt[-rows:, ::2] = 20
        assert corrupt_rows(spoilt) == rows
    bag_to_the_edge = np.full_like(scan, 40)
    assert corrupt_rows(bag_to_the_edge) == 0


@pytest.mark.parametrize("top", [1, 255, 1023, 4095, 16383, 65535])
def test_deep_pictures_are_scaled_by_their_depth(tmp_path: Path, top: int) -> None:
    """Whatever hot pixels and noise above the belt there are."""
    ramp = np.linspace(0, top, 256).repeat(4).reshape(32, 32)
    hot = ramp.copy()
    hot[::16, 0] = min(1.7 * top, 65535)
    for deep in (ramp, np.minimum(1.03 * ramp, 65535), hot):
        if top == 1:
            Image.fromarray(deep.astype(np.float32)).save(tmp_path / "deep.tif")
        else:
            Image.fromarray(np.round(deep).astype(np.uint16)).save(tmp_path / "deep.tif")
        pixels, _ = read_image(tmp_path / "deep.tif")
        wanted = np.minimum(np.round(255 * deep / top), 255)
        assert np.abs(pixels[..., 0] - wanted).max() <= 1
    with pytest.raises(BadImage):
        read_image(tmp_path / "none.png")


def test_real_masks_and_boxes(scans: Path, tmp_path: Path) -> None:
    masks = read_labelled(scans / "mixed_masks")
    segments, problems = cut_all(masks, 256, tmp_path)
    assert {segment.class_id for segment in segments.values()} == {13, 14}
    assert len(segments) >= 15
    assert sum("another size" in problem.kind for problem in problems) == 5
    pidray = read_labelled(scans / "pidray_boxes", masks_from_boxes=True, min_trust=0.0)
    segments, _ = cut_all(pidray, 256, tmp_path)
    assert len(segments) >= 8
    assert {segment.class_id for segment in segments.values()} <= set(range(1, 13))
    assert all(corrupt_rows(read_image(scan.path)[0]) == 1 for scan in pidray.scans)
    various = read_labelled(scans / "xray6dom_boxes", masks_from_boxes=True, min_trust=0.5)
    segments, _ = cut_all(various, 256, tmp_path)
    assert len(segments) >= 35
