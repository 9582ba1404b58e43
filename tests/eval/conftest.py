"""A tiny labelled data set in PIDray's layout: bright bags with coloured boxes, ellipses and rings to find."""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tests.conftest import Forked

CLASSES = {1: "Baton", 5: "Scissors", 7: "Gun"}
COLOURS = {1: (200, 90, 20), 5: (30, 110, 60), 7: (25, 40, 160)}
FOLDERS = {"train": "train", "test_easy": "easy", "test_hard": "hard", "test_hidden": "hidden"}


def draw_scan(rng: np.random.Generator, side: int, objects: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """One scan, uint8 RGB [side, side + 8, 3], and its annotations: polygon, several parts, or RLE of both kinds."""
    scan = np.full((side, side + 8, 3), 250, np.uint8)
    cv2.ellipse(scan, (side // 2, side // 2), (side // 2 - 4, side // 2 - 6), 0, 0, 360, (225, 205, 160), -1)
    scan = np.clip(scan + rng.normal(0, 3, scan.shape), 0, 255).astype(np.uint8)
    annotations = []
    for number in range(objects):
        category = int(rng.choice(list(CLASSES)))
        radius = rng.integers(side // 8, side // 4, 2)
        centre = rng.integers(side // 4, 3 * side // 4, 2)
        mask = np.zeros(scan.shape[:2], np.uint8)
        if category == 1:
            cv2.rectangle(mask, (centre - radius).tolist(), (centre + radius).tolist(), 1, -1)
        else:
            cv2.ellipse(mask, centre.tolist(), radius.tolist(), 0, 0, 360, 1, -1)
        if category == 5:
            cv2.ellipse(mask, centre.tolist(), (radius // 2).tolist(), 0, 0, 360, 0, -1)
        scan[mask > 0] = np.clip(COLOURS[category] + rng.normal(0, 6, 3), 0, 255)
        rle = coco_mask.encode(np.asfortranarray(mask))
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        polygons = [contour.reshape(-1).tolist() for contour in contours]
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.T.reshape(-1), [2]]))))
        starts_inside = [0] if mask[0, 0] else []
        segmentation = [
            polygons,
            {"size": list(mask.shape), "counts": rle["counts"].decode()},
            {"size": list(mask.shape), "counts": starts_inside + runs.tolist()},
        ][number % 3]
        annotations.append(
            {
                **{"category_id": category, "segmentation": segmentation, "area": int(mask.sum())},
                **{"bbox": coco_mask.toBbox(rle).tolist(), "iscrowd": 0},
            }
        )
    return scan, annotations


def write_split(folder: Path, json_path: Path, scans: int, side: int, seed: int, objects: int, masks: bool) -> None:
    """Scans as PNG in `folder` and their COCO json; image ids start at 0 as in PIDray."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    json_path.parent.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id in range(scans):
        scan, found = draw_scan(rng, side, objects)
        name = f"xray_{folder.name}{id:05d}.png"
        Image.fromarray(scan).save(folder / name)
        images.append({"id": id, "file_name": name, "height": scan.shape[0], "width": scan.shape[1]})
        for annotation in found:
            if not masks:
                del annotation["segmentation"]
            annotations.append({"id": len(annotations), "image_id": id, **annotation})
    categories = [{"id": id, "name": name} for id, name in CLASSES.items()]
    json_path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def signalled(step: int, number: int, log: Path, work: Callable[..., object], *given: object) -> int:
    """Exit code of work, in a process of its own, that gets a signal inside one of its steps of fine-tuning."""
    from segloc_eval.mm.tuning import FineTuning

    def watched() -> None:
        advance, steps = FineTuning.advance, itertools.count(1)

        def then(tuning: FineTuning, batch: Any) -> Any:
            if next(steps) == step:
                os.kill(os.getpid(), number)
            return advance(tuning, batch)

        FineTuning.advance = then  # type: ignore[method-assign]
        work(*given)

    return Forked(log, watched).end()[0]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: beside other tests it is faster so, and sums come out the same."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pidray(tmp_path: Path) -> Callable[..., Path]:
    """Makes a PIDray-layout folder of `train` and `test` scans per split."""

    def make(train: int = 12, test: int = 3, side: int = 96) -> Path:
        root = tmp_path / "pidray"
        for seed, (name, folder) in enumerate(FOLDERS.items()):
            count, objects = (train, 2) if name == "train" else (test, 1 + seed % 3)
            write_split(root / folder, root / "annotations" / f"xray_{name}.json", count, side, seed, objects, True)
        return root

    return make


@pytest.fixture
def lone_json(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder with one COCO json and its pictures in images/."""

    def make(scans: int = 10, side: int = 96, masks: bool = False) -> Path:
        root = tmp_path / "lone"
        write_split(root / "images", root / "annotations.json", scans, side, 7, 2, masks)
        return root

    return make


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PIDray-layout folder of 30 training scans and 4 test scans per level, made once."""
    root = tmp_path_factory.mktemp("wide")
    for seed, (name, folder) in enumerate(FOLDERS.items()):
        count = 30 if name == "train" else 4
        write_split(root / folder, root / "annotations" / f"xray_{name}.json", count, 48, seed, 2, True)
    return root


def write_voc(folder: Path) -> None:
    """Turn a lone json's folder into one of VOC xml files beside the pictures."""
    data = json.loads((folder / "annotations.json").read_text())
    for image in data["images"]:
        objects = ""
        for thing in (a for a in data["annotations"] if a["image_id"] == image["id"]):
            x, y, w, h = thing["bbox"]
            sides = {"xmin": x, "ymin": y, "xmax": x + w, "ymax": y + h}
            box = "".join(f"<{side}>{value}</{side}>" for side, value in sides.items())
            objects += f"<object><name>{CLASSES[thing['category_id']]}</name><bndbox>{box}</bndbox></object>"
        size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
        name = folder / "images" / image["file_name"]
        name.with_suffix(".xml").write_text(f"<annotation>{size}{objects}</annotation>")
    (folder / "annotations.json").unlink()
