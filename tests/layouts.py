"""One data set written in every layout that is read, from COCO json files with masks."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from segloc_synth.sources.masks import segmentation_to_mask
from tests.conftest import rle


class Labels:
    """The splits train and test of PhantomRay: pictures, and COCO data sets with decoded masks."""

    def __init__(self, pidray: Path) -> None:
        self.splits: dict[str, list[tuple[Path, dict[str, Any], list[tuple[str, np.ndarray]]]]] = {}
        for split, folder in (("train", "train"), ("test", "easy"), ("test", "hard"), ("test", "hidden")):
            name = "xray_train" if split == "train" else f"xray_test_{folder}"
            data = json.loads((pidray / "annotations" / f"{name}.json").read_text())
            self.classes = [category["name"] for category in data["categories"]]
            names = {category["id"]: category["name"] for category in data["categories"]}
            for image in data["images"]:
                sides = image["height"], image["width"]
                mine = [a for a in data["annotations"] if a["image_id"] == image["id"]]
                things = [(names[a["category_id"]], segmentation_to_mask(a["segmentation"], *sides)) for a in mine]
                self.splits.setdefault(split, []).append((pidray / folder / image["file_name"], image, things))

    def pictures(self, split: str, folder: Path) -> Iterator[tuple[str, dict[str, Any], list[tuple[str, np.ndarray]]]]:
        """Stem, image record and objects of each picture of a split, copied into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, image, things in self.splits[split]:
            shutil.copy(path, folder)
            yield path.stem, image, things


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    return cv2.boundingRect(mask)


def polygon(mask: np.ndarray) -> list[float]:
    """One polygon through the edges of a mask's pixels, its parts and holes joined by cuts that are walked twice."""
    big = np.kron(mask, np.ones((4, 4), np.uint8))
    contours, _ = cv2.findContours(big, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    start = contours[0][0, 0]
    points = [np.vstack([contour[:, 0], contour[:1, 0], [start]]) for contour in contours]
    return list(map(float, ((np.vstack(points) + 0.5) / 4).ravel()))


def coco(segmentation: Callable[[np.ndarray], Any]) -> Callable[[Labels, Path], None]:
    def write(labels: Labels, root: Path) -> None:
        (root / "annotations").mkdir(parents=True)
        categories = [{"id": id, "name": name} for id, name in enumerate(labels.classes, 1)]
        for split in labels.splits:
            images, annotations = [], []
            for stem, image, things in labels.pictures(split, root / "images" / split):
                images.append({**image, "id": len(images), "file_name": f"{stem}.png"})
                annotations += [
                    {
                        **{"id": len(annotations) + place, "image_id": images[-1]["id"], "iscrowd": 0},
                        **{"category_id": labels.classes.index(name) + 1, "bbox": list(box(mask))},
                        **{"area": int(mask.sum()), "segmentation": segmentation(mask)},
                    }
                    for place, (name, mask) in enumerate(things)
                ]
            value = {"images": images, "annotations": annotations, "categories": categories}
            (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(value))

    return write


def voc(labels: Labels, root: Path) -> None:
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split in labels.splits:
        stems = []
        for stem, image, things in labels.pictures(split, root / "JPEGImages"):
            stems.append(stem)
            objects = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax>"
                f"<ymax>{y + h}</ymax></bndbox></object>"
                for name, mask in things
                for x, y, w, h in [box(mask)]
            )
            size = f"<size><width>{image['width']}</width><height>{image['height']}</height></size>"
            (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))


def class_ids(labels: Labels, root: Path) -> None:
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "masks").mkdir()
    (root / "classes.txt").write_text("\n".join(labels.classes))
    for split in labels.splits:
        stems = []
        for stem, image, things in labels.pictures(split, root / "images"):
            stems.append(stem)
            values = np.zeros((image["height"], image["width"]), np.uint8)
            for name, mask in things:
                values[mask > 0] = labels.classes.index(name) + 1
            Image.fromarray(values).save(root / "masks" / f"{stem}.png")
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(stems))


def opixray(labels: Labels, root: Path) -> None:
    for split in labels.splits:
        (root / split / f"{split}_annotation").mkdir(parents=True)
        for stem, _, things in labels.pictures(split, root / split / f"{split}_image"):
            lines = [f"{stem}.png {n} {x} {y} {x + w} {y + h}" for n, mask in things for x, y, w, h in [box(mask)]]
            (root / split / f"{split}_annotation" / f"{stem}.txt").write_text("\n".join(lines))


def yolo(polygons: bool) -> Callable[[Labels, Path], None]:
    def write(labels: Labels, root: Path) -> None:
        for split in labels.splits:
            (root / "labels" / split).mkdir(parents=True)
            for stem, image, things in labels.pictures(split, root / "images" / split):
                sides = np.array([image["width"], image["height"]])
                lines = []
                for name, mask in things:
                    x, y, w, h = box(mask)
                    points = polygon(mask) if polygons else [x + w / 2, y + h / 2, w, h]
                    shares = (np.reshape(points, (-1, 2)) / sides).ravel()
                    lines.append(f"{labels.classes.index(name)} " + " ".join(f"{share:.6f}" for share in shares))
                (root / "labels" / split / f"{stem}.txt").write_text("\n".join(lines))
        names = "".join(f"  {number}: {name}\n" for number, name in enumerate(labels.classes))
        (root / "data.yaml").write_text(f"train: images/train\ntest: images/test\nnames:\n{names}")

    return write


WRITERS: dict[str, Callable[[Labels, Path], None]] = {
    "COCO polygons": coco(lambda mask: [polygon(mask)]),
    "COCO RLE": coco(rle),
    "VOC": voc,
    "class-id masks": class_ids,
    "OPIXray": opixray,
    "YOLO boxes": yolo(polygons=False),
    "YOLO polygons": yolo(polygons=True),
}
BOXES_ONLY = ("VOC", "OPIXray", "YOLO boxes")
