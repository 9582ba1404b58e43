"""Synthesis and evaluation read the same objects, classes and splits from every layout, and from what is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from segloc_eval.data.datasets import Data, convert, load_data
from segloc_synth.bank.labelled import LabelledSource, read_labelled
from segloc_synth.files import as_path
from segloc_synth.phantom import write_phantom
from segloc_synth.sources.images import read_image
from segloc_synth.sources.masks import annotations_of, exact_mask
from tests.layouts import BOXES_ONLY, WRITERS, Labels

Found = dict[str, list[tuple[str, tuple[float, ...], np.ndarray | None]]]  # stem -> class, box and mask of its objects


@pytest.fixture(scope="module")
def pidray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layouts")
    write_phantom(folder / "phantom", images=50, backgrounds=2, seed=3, size=128, workers=1)
    return folder / "phantom" / "pidray"


def by_synthesis(source: LabelledSource) -> Found:
    found: Found = {}
    for scan in source.scans:
        height, width = read_image(scan.path, expect=scan.size)[0].shape[:2]
        for one in annotations_of(scan, (height, width)):
            mask = None if one.derived else exact_mask(one, height, width)
            box = one.box or cv2.boundingRect(mask)  # polygons of YOLO stand alone
            found.setdefault(scan.path.stem, []).append((source.classes[one.class_id], box, mask))
    return found


def by_evaluation(data: Data, splits: str) -> Found:
    groups = [data.train, data.val] if splits == "train" else list(data.tests.values())
    return {
        scan.path.stem: [
            (data.classes[o.category_id], o.box, coco_mask.decode(o.mask) if o.mask else None) for o in scan.objects
        ]
        for group in groups
        for scan in group
    }


def assert_same(found: Found, truth: Found, masks: bool, merged: Callable[[str], bool] = lambda stem: False) -> None:
    assert found.keys() == truth.keys()
    for stem in (stem for stem in truth if not merged(stem)):
        key = lambda thing: (thing[0], thing[1])  # noqa: E731
        mine, theirs = sorted(found[stem], key=key), sorted(truth[stem], key=key)
        assert [thing[0] for thing in mine] == [thing[0] for thing in theirs], stem
        for (_, box, mask), (_, expected, exact) in zip(mine, theirs, strict=True):
            assert np.abs(np.subtract(box, expected)).max() <= 1, stem
            assert (mask is not None) == masks
            if mask is not None and exact is not None:
                assert (mask & exact).sum() >= 0.97 * (mask | exact).sum(), stem


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_holds_the_same_objects_classes_and_splits(layout: str, pidray: Path, tmp_path: Path) -> None:
    labels, root = Labels(pidray), tmp_path / "set"
    WRITERS[layout](labels, root)
    truth = load_data(pidray, ["all"], 0)
    source, data = read_labelled(root, masks_from_boxes=True), load_data(root, ["all"], 0)
    masks = layout not in BOXES_ONLY
    assert data.masks == masks and source.kind.endswith("+boxes") != masks

    def merged(stem: str) -> bool:  # a class-id picture tells neither touching objects of a class nor hidden pixels
        things = next(t for group in labels.splits.values() for path, _, t in group if path.stem == stem)
        parts = sum(cv2.connectedComponents(mask)[0] - 1 for _, mask in things)
        near = sum(cv2.dilate(mask, np.ones((3, 3), np.uint8)) for _, mask in things)
        return layout == "class-id masks" and (parts > len(things) or bool((near > 1).any()))

    assert sum(map(merged, by_evaluation(truth, "test"))) < 12, "most are compared"
    expected = by_evaluation(truth, "train")
    assert_same(by_evaluation(data, "train"), expected, masks, merged)
    assert_same(by_evaluation(data, "test"), by_evaluation(truth, "test"), masks, merged)
    assert_same(by_synthesis(source), expected, masks, merged)
    assert set(source.classes.values()) == set(data.classes.values()) == set(truth.classes.values())

    convert(root, tmp_path / "coco")  # feeds every other command as it is
    again = read_labelled(tmp_path / "coco", masks_from_boxes=not masks)
    assert_same(by_synthesis(again), expected, masks, merged)
    assert_same(by_evaluation(load_data(tmp_path / "coco", ["all"], 0), "test"), by_evaluation(data, "test"), masks)


@pytest.mark.parametrize("layout", ["COCO RLE", "VOC", "class-id masks", "OPIXray", "YOLO polygons"])
def test_a_data_set_in_a_store_is_read_as_on_disk(layout: str, s3: Any, tmp_path: Path) -> None:
    write_phantom(tmp_path / "phantom", images=8, backgrounds=2, seed=3, size=64, workers=1)
    root, name = tmp_path / "set", layout.lower().replace(" ", "-")
    WRITERS[layout](Labels(tmp_path / "phantom" / "pidray"), root)
    s3.create_bucket(Bucket=name)
    for path in (path for path in root.rglob("*") if path.is_file()):
        s3.upload_file(str(path), name, f"sets/{path.relative_to(root).as_posix()}")
    url = as_path(f"s3://{name}/sets")
    masks = layout not in BOXES_ONLY
    near, far = (read_labelled(path, masks_from_boxes=True) for path in (root, url))
    assert (far.fingerprint, far.classes, far.kind) == (near.fingerprint, near.classes, near.kind)
    assert_same(by_synthesis(far), by_synthesis(near), masks)
    here, there = (load_data(path, ["all"], 0) for path in (root, url))
    assert here.fingerprint == there.fingerprint
    assert_same(by_evaluation(there, "test"), by_evaluation(here, "test"), masks)
