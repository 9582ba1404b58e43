"""Reading labelled data: layouts, encodings, and every kind of bad record counted and left out."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from tests.eval.conftest import write_voc

from segloc_eval.data import preflight, records
from segloc_eval.data.datasets import Data, load_data, truth, write_lists
from segloc_eval.data.splits import label_slug
from segloc_eval.mm.data import example
from segloc_eval.numbers.score import score
from segloc_eval.run.results import write_truth
from segloc_synth.bank.merging import read_labelled_all, read_names
from segloc_synth.phantom import write_phantom
from segloc_synth.sources import problems
from segloc_synth.sources.images import MAX_PIXELS, read_image

Make = Callable[..., Path]


def edit(json_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(json_path.read_text())
    change(data)
    json_path.write_text(json.dumps(data))


def kinds(data: Data) -> list[str]:
    return sorted(problem.kind for problem in data.problems)


def test_pidray_layout(pidray: Make) -> None:
    data = load_data(pidray(train=8, test=3), ["all"], 0)
    assert (len(data.train), {name: len(s) for name, s in data.tests.items()}) == (
        8,
        {"easy": 3, "hard": 3, "hidden": 3},
    )
    assert data.classes == {1: "Baton", 5: "Scissors", 7: "Gun"} and data.masks and not data.problems
    assert list(data.tests) == ["easy", "hard", "hidden"]
    ids = [scan.id for scans in (data.train, *data.tests.values()) for scan in scans]
    assert len(set(ids)) == len(ids) == 17, "image ids restart in each file and must be told apart"


def test_pidray_by_the_name_of_its_training_json(pidray: Make) -> None:
    folder = pidray(train=4, test=1)
    by_folder, by_name = (load_data(path, ["all"], 0) for path in (folder, folder / "annotations" / "xray_train.json"))
    assert by_name == by_folder and list(by_name.tests) == ["easy", "hard", "hidden"]


def test_all_mask_encodings_agree_with_their_boxes(pidray: Make) -> None:
    for scan in load_data(pidray(train=8), ["all"], 0).train:
        for thing in scan.objects:
            assert thing.mask is not None and thing.mask["size"] == [scan.height, scan.width]
            box = coco_mask.toBbox(thing.mask)
            assert np.abs(box - thing.box).max() <= 1  # polygons through pixel centres lose half a pixel a side


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_truth_as_predictions_is_perfect_on_every_split(pidray: Make, kind: Any) -> None:
    data = load_data(pidray(train=2, test=4), ["all"], 0)
    for split, scans in data.tests.items():
        reference = truth(scans, data.classes)
        results = [{**a, "score": 1.0} for a in reference["annotations"]]
        overall = score(reference, results, kind)["overall"]
        for name in ("AP", "AP50", "AP75", "AR@100"):
            assert overall[name] == pytest.approx(1.0), (split, name)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), eval_first=st.booleans())
def test_label_sets_are_nested_and_apart_from_what_is_scored(
    wide: Path, seed: int, eval_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ["1%", "30%", "7", "all"][:: -1 if eval_first else 1]
    data = load_data(wide, labels, seed)
    assert data.sizes == {label_slug(text): {"1%": 1, "30%": 8, "7": 7, "all": 27}[text] for text in labels}
    assert [scan.path for scan in load_data(wide, ["7"], seed).train] == [scan.path for scan in data.train[:7]]
    groups = [data.train, data.val, *data.tests.values()]
    paths = [scan.path for group in groups for scan in group]
    assert [len(group) for group in groups] == [27, 3, 4, 4, 4] and len(set(paths)) == len(paths)
    on_val = load_data(wide, labels, seed, on="val")
    assert on_val.tests == {"val": on_val.val} and [s.path for s in on_val.val] == [s.path for s in data.val]
    assert [s.path for s in on_val.train] == [s.path for s in data.train] and on_val.sizes == data.sizes
    assert load_data(wide, [], seed, eval_only=True).tests == data.tests, "ids included"


def test_only_pictures_that_are_used_are_decoded(pidray: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pidray(train=40, test=2)
    seen: list[str] = []

    def read(path: Path, **more: Any) -> Any:
        seen.append(path.parent.name)
        return read_image(path, **more)

    monkeypatch.setattr(records, "read_image", read)
    load_data(folder, ["2"], 0)
    assert seen.count("train") <= 32 and len(seen) == seen.count("train") + 6, "the tests, and one batch ahead"
    seen.clear()
    load_data(folder, [], 0, eval_only=True)
    assert sorted(seen) == ["easy"] * 2 + ["hard"] * 2 + ["hidden"] * 2
    seen.clear()
    load_data(folder, ["2"], 0, on="val")
    assert set(seen) == {"train"}


def test_scans_that_leak_are_left_out_and_listed(pidray: Make) -> None:
    folder = pidray(train=12, test=3)
    for number, (level, quality) in enumerate([("easy", None), ("hard", 60), ("hidden", 90)]):
        source = Image.open(folder / level / f"xray_{level}00001.png").convert("RGB")
        target = folder / "train" / f"xray_train{number:05d}.png"
        if quality:
            source.save(buffer := io.BytesIO(), "JPEG", quality=quality)
            source = Image.open(buffer)
        source.save(target)
    white = Image.new("RGB", (104, 96), "white")
    white.save(folder / "train" / "xray_train00003.png")  # blank, but for one pixel: like no other blank
    white.putpixel((5, 5), (0, 0, 0))
    white.save(folder / "easy" / "xray_easy00002.png")
    clean, leaky = (load_data(folder, ["all"], 3, on=on) for on in ("val", "test"))
    expected = {
        (preflight.LEAK_SAME, "train/xray_train00000.png", "like easy/xray_easy00001.png of easy"),
        (preflight.LEAK_NEAR, "train/xray_train00001.png", "like hard/xray_hard00001.png of hard"),
        (preflight.LEAK_NEAR, "train/xray_train00002.png", "like hidden/xray_hidden00001.png of hidden"),
    }
    in_val = {scan.path.name for scan in leaky.val}
    found = {(problem.kind, problem.file, problem.record) for problem in leaky.problems}
    assert found == {entry for entry in expected if entry[1][6:] not in in_val} and len(found) >= 2
    assert len(leaky.train) == 11 - len(found) and len(clean.train) == 11 and not problems.faults(clean.problems)
    assert {(told["fate"], told["remedy"][:22]) for told in preflight.as_dicts(leaky.problems)} == {
        ("skipped", "nothing: it is left ou")
    }
    with pytest.raises(click.ClickException, match="near-identical"):
        preflight.stop(leaky.problems, "data", strict=True)


def test_scans_like_validation_scans_are_not_learnt_and_these_stay(pidray: Make) -> None:
    folder = pidray(train=20, test=1)
    val = load_data(folder, ["all"], 0, on="val").val
    copied = next(path for path in sorted((folder / "train").iterdir()) if path not in [scan.path for scan in val])
    shutil.copy(val[0].path, copied)
    for labels in ("4", "all"):
        data = load_data(folder, [labels], 0, on="val")
        assert [scan.path for scan in data.val] == [scan.path for scan in val] == [s.path for s in data.tests["val"]]
    assert len(data.train) == 17
    assert [(p.kind, p.file) for p in problems.faults(data.problems)] == [(preflight.LEAK_SAME, f"train/{copied.name}")]
    with pytest.raises(click.ClickException, match="no scan left to validate on; label at least ten"):
        load_data(pidray(train=9, test=1), ["all"], 0, on="val")


def test_fewer_scans_than_asked_for_are_told(pidray: Make) -> None:
    data = load_data(pidray(train=12, test=1), ["5", "500"], 0)
    assert data.sizes == {"5": 5, "500": 11}
    assert [(p.kind, p.record) for p in data.problems if p.kind == problems.SHORT] == [(problems.SHORT, "--labels 500")]


@pytest.mark.parametrize("layout", ["pidray", "lone", "voc"])
def test_lists_are_names_that_synthesis_takes(layout: str, pidray: Make, lone_json: Make, tmp_path: Path) -> None:
    if layout == "pidray":
        folder = pidray(train=22, test=1)
    else:
        folder = lone_json(scans=30, masks=True)
        odd = ["#one.png", " two .png", "three (1) [b].png"]
        edit(
            folder / "annotations.json",
            lambda d: [i.update(file_name=n) for i, n in zip(d["images"], odd, strict=False)],
        )
        for path, name in zip(sorted((folder / "images").iterdir()), odd, strict=False):
            path.rename(path.with_name(name))
        if layout == "voc":
            write_voc(folder)
    data = load_data(folder, ["20%", "all"], 0)
    write_lists(data, tmp_path)
    for file, scans in (("labels-20pct.txt", data.train[: data.sizes["20pct"]]), ("labels-all.txt", data.train)):
        sources = read_labelled_all([folder], images=read_names(tmp_path / file), masks_from_boxes=layout == "voc")
        assert {s.path for source in sources for s in source.scans} == {s.path for s in scans}
    assert len(read_names(tmp_path / "val.txt")) == len(data.val) > 0


def test_the_simulated_data_do_not_leak(tmp_path: Path) -> None:
    write_phantom(tmp_path / "phantom", images=200, backgrounds=1, seed=0, size=96)
    data = load_data(tmp_path / "phantom" / "pidray", ["all"], 0)
    assert not [p for p in data.problems if p.kind in (preflight.LEAK_SAME, preflight.LEAK_NEAR)]


def test_lone_json_is_split_with_near_copies_on_one_side(lone_json: Make) -> None:
    folder = lone_json(scans=10)
    path = folder / "annotations.json"

    def double(data: dict[str, Any]) -> None:
        for image in list(data["images"]):
            name = f"copy_{image['file_name'][:-4]}.jpg"
            Image.open(folder / "images" / image["file_name"]).save(folder / "images" / name, quality=70)
            copies = [{**a, "image_id": image["id"] + 100} for a in data["annotations"] if a["image_id"] == image["id"]]
            data["images"].append({**image, "id": image["id"] + 100, "file_name": name})
            data["annotations"] += copies

    edit(path, double)
    for seed in range(4):
        data = load_data(folder, ["all"], seed)
        assert (
            len(data.train) == 11 and len(data.val) == 1 and {n: len(s) for n, s in data.tests.items()} == {"test": 8}
        )
        sides = [{s.source_id % 100 for s in scans} for scans in ([*data.train, *data.val], data.tests["test"])]
        assert not sides[0] & sides[1]
    assert not data.masks and {s.path for s in load_data(path, ["all"], 3).train} == {s.path for s in data.train}


def test_bad_records_are_counted_and_left_out(pidray: Make) -> None:
    folder = pidray(train=12, test=2)
    images = folder / "train"
    (images / "xray_train00000.png").unlink()
    (images / "xray_train00001.png").write_bytes(b"")
    whole = (images / "xray_train00002.png").read_bytes()
    (images / "xray_train00002.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (40, 40)).save(images / "xray_train00003.png")

    def spoil(data: dict[str, Any]) -> None:
        of = {i: [a for a in data["annotations"] if a["image_id"] == i] for i in range(12)}
        of[4][0]["category_id"] = 99
        of[5][0]["bbox"] = [500, 500, 10, 10]
        of[6][0]["bbox"] = [10, 10, 0, 5]
        of[7][0]["bbox"] = [50, 50, 90, 90]
        of[8][0]["segmentation"] = [[1, 1, 5, 5]]
        del of[9][0]["segmentation"]
        of[10][0]["segmentation"] = {"size": [7, 7], "counts": [49]}
        of[11][0]["iscrowd"] = 1
        data["annotations"].append({"id": 999, "image_id": 77, "category_id": 1, "bbox": [1, 1, 5, 5]})

    edit(folder / "annotations" / "xray_train.json", spoil)
    data = load_data(folder, ["all"], 0)
    assert len(data.train) + len(data.val) == 8
    assert [len(scan.objects) for scan in (*data.train, *data.val)].count(1) == 6, (
        "only the bad object is left out, not its scan"
    )
    expected = [
        *("image file is missing", "image file of zero bytes", "image file is damaged or no picture"),
        *("image of another size than its labels say", "annotation of an unknown category"),
        *("box without area or outside the image", "polygon of fewer than 3 points"),
        *(problems.BOX_OF_MASK, problems.BOX_OUTSIDE, "box and mask that do not meet"),
        *("annotation without a mask, among others with masks", "RLE of another size than its image"),
        "annotation of an image that the file does not list",
    ]
    assert kinds(data) == sorted(expected)


@pytest.mark.parametrize(
    "content", ["[]", '{"images": []}', "{", '{"images": [], "annotations": [], "categories": []}']
)
def test_what_is_no_coco_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(content)
    with pytest.raises(click.ClickException, match=r"some\.json: "):
        load_data(path, ["all"], 0)


def test_nothing_usable_names_the_source(pidray: Make, tmp_path: Path) -> None:
    folder = pidray(train=3, test=1)
    shutil.rmtree(folder / "hard")
    with pytest.raises(click.ClickException, match=r"hard: no usable object.*first problem: image file is missing"):
        load_data(folder, ["all"], 0)
    with pytest.raises(click.ClickException, match="no such file or folder"):
        load_data(tmp_path / "nowhere", ["all"], 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(click.ClickException, match="no annotations"):
        load_data(tmp_path / "empty", ["all"], 0)


def test_other_categories_in_a_test_json_are_refused(pidray: Make) -> None:
    folder = pidray(train=3, test=1)
    edit(folder / "annotations" / "xray_test_hard.json", lambda data: data["categories"].pop())
    with pytest.raises(click.ClickException, match=r"xray_test_hard\.json: its categories are not those"):
        load_data(folder, ["all"], 0)


def test_pictures_of_other_kinds_are_used_and_listed(pidray: Make) -> None:
    folder = pidray(train=5, test=1)
    paths = sorted((folder / "train").iterdir())
    reference = np.asarray(Image.open(paths[0]))
    Image.fromarray(reference).convert("L").save(paths[0])
    deep = np.asarray(Image.open(paths[1]).convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(paths[1])
    clear = Image.open(paths[2]).convert("RGBA")
    clear.putalpha(0)
    clear.save(paths[2])
    data = load_data(folder, ["all"], 0)
    found = {(problem.kind, problem.file, problem.record) for problem in data.problems}
    kinds = (problems.GREY, problems.DEEP, problems.ALPHA)
    assert found == {(kind, f"train/{paths[id].name}", f"image {id}") for id, kind in enumerate(kinds)}
    by_id = {scan.source_id: scan for scan in data.train}
    assert len(by_id) == 5
    grey, deep_, white = (example(by_id[id], 104, None)[0][:, :96, :104].numpy() for id in range(3))
    luma = np.asarray(Image.fromarray(reference).convert("L"))
    assert (grey == luma).all() and (deep_ == (deep // 257).astype(np.uint8)).all() and (white == 255).all()


def test_each_picture_of_a_lone_json_is_listed_once(lone_json: Make) -> None:
    folder = lone_json(scans=10)
    for path in (folder / "images").iterdir():
        Image.open(path).convert("L").save(path)
    data = load_data(folder, ["all"], 0)
    assert len(data.train) + len(data.val) + len(data.tests["test"]) == 10
    assert kinds(data) == [problems.GREY] * 10


def test_impossible_entries_are_left_out_before_anything_is_decoded(pidray: Make) -> None:
    folder = pidray(train=6, test=1)

    def spoil(data: dict[str, Any]) -> None:
        side = int(MAX_PIXELS**0.5) + 1
        data["images"][0].update(width=side, height=side)
        data["images"][1].update(width=-96, height=-104)
        data["images"][2]["id"] = 2.5
        data["images"][3]["id"] = 4
        data["annotations"][-1].update(bbox=[10**400, 0.5, 5, 5], area=10**400)
        data["annotations"][-2]["area"] = 10**400  # as a float it would overflow
        for record in data["annotations"]:
            if record["image_id"] == 0:  # decoded, it would take the memory of the stated size
                record["segmentation"] = {"size": [side, side], "counts": [0, side * side]}

    edit(folder / "annotations" / "xray_train.json", spoil)
    data = load_data(folder, ["all"], 0)
    assert sorted(scan.path.name[-5:] for scan in data.train) == ["3.png", "5.png"]
    entries = [(problem.kind, problem.where()) for problem in data.problems if problem.kind.startswith("image")]
    assert entries == [
        ("image entry of an impossible size", "xray_train00000.png image 0"),
        ("image entry of an impossible size", "xray_train00001.png image 1"),
        ("image entry without id or file_name", "xray_train.json image no. 2"),
        ("image entry whose id another has", "xray_train00004.png image 4"),
    ]


def test_truth_follows_the_labels_and_is_not_measured_twice(pidray: Make, tmp_path: Path) -> None:
    folder, file = pidray(train=4, test=2), tmp_path / "truth" / "easy.json"
    write_truth(tmp_path, load_data(folder, [], 0, eval_only=True))
    written = file.stat().st_mtime_ns
    write_truth(tmp_path, load_data(folder, [], 0, eval_only=True))
    assert file.stat().st_mtime_ns == written and '"clutter"' in file.read_text()
    labels = folder / "annotations" / "xray_test_easy.json"

    def turn(data: dict[str, Any]) -> None:
        data["annotations"][0]["category_id"] = 7 if data["annotations"][0]["category_id"] != 7 else 5

    edit(labels, turn)
    write_truth(tmp_path, load_data(folder, [], 0, eval_only=True))
    told = [a["category_id"] for path in (labels, file) for a in json.loads(path.read_text())["annotations"][:1]]
    assert told[0] == told[1]
