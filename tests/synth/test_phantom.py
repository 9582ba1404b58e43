"""PhantomRay: the physics, the data set on disk, and what its makers promise of it."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from tests.synth.conftest import render_scan

from segloc_synth.phantom import PIDRAY, PIDRAY_VIVID, SIXRAY, VERSION, default_phantom, write_phantom
from segloc_synth.phantom.dataset import JSONS, scanner_of, split_sizes
from segloc_synth.phantom.outlines import ellipse, pose, profile, rect
from segloc_synth.phantom.physics import PLASTIC, STEEL, WATER, material
from segloc_synth.phantom.scene import CLASSES, SPLITS, cast, plan_scene, silhouette
from segloc_synth.phantom.shapes import Item, Lathe, Solid, Wire, draw

IMAGES, BACKGROUNDS, SEED, SIZE = 50, 8, 3, 128
NAMES = ["Baton", "Pliers", "Hammer", "Powerbank", "Scissors", "Wrench"]
NAMES += ["Gun", "Bullet", "Sprayer", "HandCuffs", "Knife", "Lighter"]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom") / "data"
    write_phantom(out, IMAGES, BACKGROUNDS, SEED, SIZE, workers=2)
    return out


def coco(phantom: Path, split: str) -> COCO:
    return COCO(str(phantom / "pidray" / "annotations" / JSONS[split]))


def digest(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# --- physics ----------------------------------------------------------------------------------------------------


def shadow(item: Item, angle: float, scale: float) -> float:
    """Integral of the thickness over the detector, cm^3, of an item of attenuation 1 per cm."""
    canvas = np.zeros((2, 300, 300), np.float32)
    to_pixels = pose(150, 150, angle)
    to_pixels[:, :2] *= scale
    for part in item:
        draw(canvas, part, to_pixels)
    np.testing.assert_allclose(canvas[1], 2 * canvas[0], rtol=1e-5)
    return float(canvas[0].sum(dtype=np.float64)) / scale**2


UNIT = (1.0, 2.0)


@settings(max_examples=25)
@given(st.floats(0, 6.2), st.floats(6, 10), st.floats(1.0, 3.0), st.floats(4, 12))
def test_shadows_hold_the_volume_of_the_solid(angle: float, scale: float, r: float, length: float) -> None:
    cylinder = Lathe(profile((0, r), (length, r)), UNIT, (-length / 2, 0))
    tube = cylinder._replace(wall=0.4)
    inner = np.pi * (r - 0.4) ** 2 * (length - 0.8)
    plate = Solid([rect(length, 2 * r), ellipse(r / 2, r / 2)], UNIT, 0.7)
    wire = Wire([np.array([(-length / 2, 0.0), (length / 2, 0.0)])], UNIT, 0.1)
    assert shadow([cylinder], angle, scale) == pytest.approx(np.pi * r * r * length, rel=0.05)
    assert shadow([tube], angle, scale) == pytest.approx(np.pi * r * r * length - inner, rel=0.12)
    # a prism also fills the pixels that its outline touches: about half a pixel, or more at a slant, all around
    area, around = 2 * r * length - np.pi * r * r / 4, 2 * length + 4 * r + np.pi * r
    assert 0.97 * area < shadow([plate], angle, scale) / 0.7 < 1.03 * area + 0.8 * around / scale
    # drawn as runs of whole pixels: up to sqrt(2) of them to the unit length
    assert 0.65 < shadow([wire], angle, scale) / (np.pi / 4 * 0.01 * length) < 1.3


@pytest.mark.parametrize("thickness", [0.5, 2.0, 8.0])
def test_material_is_told_whatever_the_thickness(thickness: float) -> None:
    def kind(mu: tuple[float, float], cm: float) -> float:
        low, high = (np.full((5, 5), m * cm, np.float32) for m in mu)
        return float(material(low, high)[2, 2])

    assert kind(WATER, thickness) < 0.1 and kind(PLASTIC, thickness) < 0.1
    assert kind(STEEL, thickness / 10) > 0.85
    assert 0.3 < kind((0.632, 0.418), thickness) < 0.6  # aluminium


# --- the same bag, seen differently -------------------------------------------------------------------------------


def test_the_object_alone_makes_the_difference() -> None:
    for index in range(4):
        with_it, masks = render_scan(SEED, "easy", index, SIZE, PIDRAY)
        without, _ = render_scan(SEED, "easy", index, SIZE, PIDRAY, threats=False)
        changed = np.abs(with_it.astype(int) - without).max(2) > 0
        near = cv2.dilate(masks[0].astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
        assert not changed[~near].any()
        assert changed[masks[0]].mean() > 0.7


def test_two_scanners_show_one_bag_in_two_ways() -> None:
    saturation: dict[str, list[float]] = {"pidray": [], "sixray": []}
    for index in range(6):
        images = {}
        masks = {}
        for scanner in (PIDRAY, SIXRAY):
            images[scanner.name], masks[scanner.name] = render_scan(SEED, "train", index, SIZE, scanner)
            hsv = cv2.cvtColor(images[scanner.name], cv2.COLOR_RGB2HSV)
            middle = (images[scanner.name].mean(2) > 100) & (images[scanner.name].mean(2) < 210)
            saturation[scanner.name].append(float(hsv[middle][:, 1].mean()))
        assert all(np.array_equal(a, b) for a, b in zip(masks["pidray"], masks["sixray"], strict=True))
        belt = (images["sixray"] == 255).all(2)
        assert belt.mean() > 0.2  # pure white where nothing lies, with no noise
        assert (images["pidray"][belt] < 255).any(1).mean() > 0.3
    assert np.mean(saturation["sixray"]) > 1.3 * np.mean(saturation["pidray"])


def test_size_does_not_change_the_bag() -> None:
    small, small_masks = render_scan(SEED, "easy", 6, 128, PIDRAY)
    large, large_masks = render_scan(SEED, "easy", 6, 256, PIDRAY)
    assert max(small.shape) == 128 and max(large.shape) == 256
    shrunk = cv2.resize(large_masks[0].astype(np.uint8), small_masks[0].shape[::-1], interpolation=cv2.INTER_AREA) > 0
    both = (shrunk & small_masks[0]).sum() / (shrunk | small_masks[0]).sum()
    assert both > 0.7


def test_a_quarter_of_the_labelled_scans_is_in_the_vivid_palette() -> None:
    looks = [scanner_of(SEED, "train", index).name for index in range(400)]
    assert set(looks) == {"pidray", "pidray-vivid"} and 70 < looks.count("pidray-vivid") < 130
    assert {scanner_of(SEED, "benign", index).name for index in range(50)} == {"sixray"}
    colour: dict[str, list[float]] = {"pidray": [], "pidray-vivid": []}  # greatest less least channel
    for scanner in (PIDRAY, PIDRAY_VIVID):
        for index in range(6):
            image, _ = render_scan(SEED, "train", index, SIZE, scanner)
            colour[scanner.name] += np.ptp(image[(image.max(2) > 120) & (image.min(2) < 200)], axis=1).tolist()
    assert np.mean(colour["pidray-vivid"]) > 1.3 * np.mean(colour["pidray"])


@pytest.mark.parametrize("split", SPLITS)
def test_no_item_is_cut_by_the_frame(split: str) -> None:
    for index in range(12):
        for own in cast(plan_scene(SEED, split, index), 96).threats:
            mask = silhouette(own)
            assert mask.any() and not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


# --- the data set on disk -----------------------------------------------------------------------------------------


def test_layout_is_pidrays_and_sixrays(phantom: Path) -> None:
    sizes = split_sizes(IMAGES)
    assert sum(sizes.values()) == IMAGES
    assert sorted(p.name for p in phantom.iterdir()) == ["phantom.json", "pidray", "sixray"]
    names = {"train": "xray_", "easy": "xray_easy", "hard": "xray_hard", "hidden": "xray_hidden"}
    for split in SPLITS:
        data = json.loads((phantom / "pidray" / "annotations" / JSONS[split]).read_text())
        assert list(data) == ["info", "license", "categories", "images", "annotations"]
        assert [(c["id"], c["name"]) for c in data["categories"]] == list(enumerate(NAMES, 1))
        assert [i["id"] for i in data["images"]] == list(range(sizes[split]))
        assert [a["id"] for a in data["annotations"]] == list(range(len(data["annotations"])))
        assert [i["file_name"] for i in data["images"]] == [f"{names[split]}{n:05d}.png" for n in range(sizes[split])]
        for image in data["images"]:
            pixels = cv2.imread(str(phantom / "pidray" / split / image["file_name"]), cv2.IMREAD_UNCHANGED)
            assert pixels.shape == (image["height"], image["width"], 3) and max(pixels.shape) == SIZE
    benign = sorted(p.name for p in (phantom / "sixray").iterdir())
    assert benign == [f"N{n:07d}.jpg" for n in range(1, BACKGROUNDS + 1)]
    told = json.loads((phantom / "phantom.json").read_text())
    assert {"version": VERSION, "images": IMAGES, "backgrounds": BACKGROUNDS, "seed": SEED, "size": SIZE}.items() <= (
        told.items()
    )


def test_splits_hold_what_their_names_say(phantom: Path) -> None:
    per_image = {}
    for split in SPLITS:
        data = coco(phantom, split)
        per_image[split] = [len(data.getAnnIds(imgIds=i)) for i in data.getImgIds()]
    assert set(per_image["easy"]) == {1} == set(per_image["hidden"])
    assert min(per_image["hard"]) >= 2 and max(per_image["hard"]) <= 4
    assert set(per_image["train"]) <= {1, 2, 3} and max(per_image["train"]) > 1
    train = coco(phantom, "train")
    assert {a["category_id"] for a in train.anns.values()} == set(range(1, 13))


def test_boxes_and_areas_are_those_of_the_decoded_masks(phantom: Path) -> None:
    for split in SPLITS:
        data = coco(phantom, split)
        for note in data.anns.values():
            mask = data.annToMask(note).astype(bool)
            rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            box = [cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1]
            assert note["bbox"] == box and note["area"] == mask.sum() >= 15 and note["iscrowd"] == 0
            stored = note["segmentation"]
            if isinstance(stored, list):
                assert all(len(part) >= 6 and len(part) % 2 == 0 for part in stored)
        for image in data.getImgIds():  # and the stored masks are the objects' own
            truth = [silhouette(own) for own in cast(plan_scene(SEED, split, image), SIZE).threats]
            notes = data.loadAnns(data.getAnnIds(imgIds=image))
            for own, note in zip(truth, notes, strict=True):
                mask = data.annToMask(note).astype(bool)
                assert (own & mask).sum() > 0.95 * (own | mask).sum()


def test_all_three_kinds_of_segmentation_occur(phantom: Path) -> None:
    stored = [note["segmentation"] for split in SPLITS for note in coco(phantom, split).anns.values()]
    kinds = ["polygon" if isinstance(s, list) else type(s["counts"]).__name__ for s in stored]
    assert {"polygon", "str", "list"} == set(kinds)
    assert kinds.count("polygon") > 0.4 * len(kinds)


def test_hidden_items_lie_under_more_than_easy_ones() -> None:
    def over(split: str) -> list[float]:
        values = []
        for index in range(16):
            shades = cast(plan_scene(SEED, split, index), 96)
            values.append(float(shades.bag.sum(0)[shades.threats[0][0] > 1e-3].mean()))
        return values

    easy, hidden = over("easy"), over("hidden")
    assert np.median(hidden) > 2.5 * np.median(easy)
    assert np.quantile(hidden, 0.2) > np.median(easy)


def test_bytes_do_not_depend_on_workers(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()  # an empty folder is as good as none
    write_phantom(tmp_path / "one", IMAGES, BACKGROUNDS, SEED, SIZE, workers=1)
    assert digest(tmp_path / "one") == digest(phantom)
    write_phantom(tmp_path / "seed", 4, 1, SEED + 1, SIZE)
    assert digest(tmp_path / "seed")["sixray/N0000001.jpg"] != digest(phantom)["sixray/N0000001.jpg"]


@pytest.mark.parametrize(
    ("images", "backgrounds", "seed", "size", "words"),
    [(3, 1, 0, 96, "at least 4"), (4, 0, 0, 96, "at least 1"), (4, 1, -1, 96, "seed -1"), (4, 1, 0, 20, "20 px")],
)
def test_numbers_out_of_range(tmp_path: Path, images: int, backgrounds: int, seed: int, size: int, words: str) -> None:
    with pytest.raises(click.ClickException, match=words):
        write_phantom(tmp_path / "out", images, backgrounds, seed, size)
    assert not any(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(click.ClickException, match="not empty"):
        write_phantom(tmp_path, 4, 1, 0, 96)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


RUN = "import sys; from pathlib import Path; from segloc_synth.phantom import write_phantom\n"
RUN += "write_phantom(Path(sys.argv[1]), 4000, 10, 0, 96, 2)"


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGKILL])
def test_a_run_cut_short_leaves_nothing_under_the_name(tmp_path: Path, blow: signal.Signals) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "out")], stderr=subprocess.DEVNULL)
    try:
        while len(list(tmp_path.glob(".tmp/out*/pidray/train/*.png"))) < 5:
            assert run.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(run.pid, blow)
        assert run.wait(600) != 0
    assert not (tmp_path / "out").exists()
    if blow == signal.SIGINT:
        assert not any(tmp_path.iterdir())
    else:  # the workers end as well
        before = -1
        while (left := len(list(tmp_path.rglob("*.png")))) != before:
            before = left
            time.sleep(1)
        assert left < 2000, "they went on"


def _default(cache: str) -> str:
    os.environ["SEGLOC_CACHE"] = cache
    return str(default_phantom(8, 2, 0, 64))


def test_the_default_is_made_once_even_by_two_at_a_time(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_default, [str(tmp_path)] * 2, chunksize=1)
    assert first == second and [p.name for p in tmp_path.iterdir()] == [Path(first).name]
    made = {p: p.stat().st_mtime_ns for p in Path(first).rglob("*")}
    os.environ["SEGLOC_CACHE"], before = str(tmp_path), os.environ.get("SEGLOC_CACHE")
    try:
        assert str(default_phantom(8, 2, 0, 64)) == first
    finally:
        os.environ.pop("SEGLOC_CACHE") if before is None else os.environ.update(SEGLOC_CACHE=before)
    assert {p: p.stat().st_mtime_ns for p in Path(first).rglob("*")} == made


def test_every_class_has_a_silhouette_of_its_own() -> None:
    """Classes differ more than one class's variants: the nearest mean of a few outline features tells most of them."""
    rng = np.random.default_rng(0)

    def shape(make: object, n: int) -> np.ndarray:
        out = []
        for _ in range(n):
            canvas = np.zeros((2, 320, 320), np.float32)
            to_pixels = pose(160, 160, 0)
            to_pixels[:, :2] *= 5
            for part in make(rng):  # type: ignore[operator]
                draw(canvas, part, to_pixels)
            mask = (canvas[0] > 1e-3).astype(np.uint8)
            hu = cv2.HuMoments(cv2.moments(mask, True)).ravel()[:3]
            out.append([*-np.log10(np.abs(hu) + 1e-9), np.log10(mask.sum()), np.log10(canvas[0].sum())])
        return np.array(out)

    known = [shape(make, 25) for _, make in CLASSES]
    spread = np.concatenate([k - k.mean(0) for k in known]).std(0)
    means = np.array([k.mean(0) for k in known]) / spread
    right = 0
    for i, (_, make) in enumerate(CLASSES):
        far = np.linalg.norm(shape(make, 10)[:, None] / spread - means[None], axis=2)
        right += int((far.argmin(1) == i).sum())
    assert right > 0.5 * 10 * len(CLASSES)  # chance is a twelfth
