"""Small sound labelled data of every layout, for `fuzz.py`."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco_mask

Files = dict[str, bytes]  # path below the data set's folder -> content
NAMES = ("Knife", "螺丝刀")
WIDTH, HEIGHT = 60, 52  # pixels
BLADE = (10, 10, 34, 14, 33, 20, 11, 18)
PICTURES = (".png", ".jpg")


class Layout(NamedTuple):
    """A sound data set; `path` below its folder is what commands are given, `masks`: its objects have masks."""

    files: Files
    path: str = ""
    masks: bool = True
    benign: bool = False


def scan(number: int) -> tuple[bytes, np.ndarray]:
    """A bag with a blade and, on most, a disc: a PNG, and the class-id mask, uint8 [HEIGHT, WIDTH]."""
    rng = np.random.default_rng(number)
    picture = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    picture[4:-4, 4:-4] = (110, 178, 236)
    for x, y, r in rng.integers((6, 6, 2), (54, 46, 7), (10, 3)).tolist():
        cv2.circle(picture, (x, y), r, rng.integers(60, 220, 3).tolist(), -1)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.array(BLADE).reshape(-1, 2)], 1)
    if number % 3:
        cv2.circle(mask, (42, 36), 7, 2, -1)
    picture[mask > 0] = (90, 60, 30)
    return cv2.imencode(".png", picture)[1].tobytes(), mask


def boxes(mask: np.ndarray) -> list[tuple[int, tuple[int, int, int, int]]]:
    return [(v, cv2.boundingRect((mask == v).astype(np.uint8))) for v in (1, 2) if (mask == v).any()]


def coco(folder: str, numbers: range) -> tuple[Files, bytes]:
    images: list[Any] = []
    annotations: list[Any] = []
    files = {f"{folder}/scan{n}.png": scan(n)[0] for n in numbers}
    for n in numbers:
        images.append({"id": n, "file_name": f"scan{n}.png", "width": WIDTH, "height": HEIGHT})
        for value, box in boxes(scan(n)[1]):
            own = (scan(n)[1] == value).astype(np.uint8)
            flat = own.flatten(order="F")
            runs = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])).tolist()
            packed = coco_mask.encode(np.asfortranarray(own))["counts"].decode()
            shape: Any = [list(BLADE)] if value == 1 else {"size": [HEIGHT, WIDTH], "counts": (runs, packed)[n % 2]}
            record = {"id": len(annotations), "image_id": n, "category_id": value, "bbox": list(box), "iscrowd": 0}
            annotations.append({**record, "segmentation": shape, "area": int(own.sum())})
    categories = [{"id": id, "name": name} for id, name in enumerate(NAMES, 1)]
    return files, json.dumps({"images": images, "annotations": annotations, "categories": categories}).encode()


def per_picture(
    pictures: str, labels: str, numbers: range, write: Callable[[int, np.ndarray], bytes], end: str
) -> Files:
    files = {f"{pictures}/scan{n}.png": scan(n)[0] for n in numbers}
    return files | {f"{labels}/scan{n}{end}": write(n, scan(n)[1]) for n in numbers}


def mask_png(_: int, mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


def xml(_: int, mask: np.ndarray) -> bytes:
    things = "".join(
        f"<object><name>{NAMES[value - 1]}</name><difficult>0</difficult><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
        for value, (x, y, w, h) in boxes(mask)
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
    return f"<?xml version='1.0' encoding='utf-8'?><annotation>{size}{things}</annotation>".encode()


def opixray(n: int, mask: np.ndarray) -> bytes:
    lines = [f"scan{n}.png {NAMES[value - 1]} {x} {y} {x + w} {y + h}\n" for value, (x, y, w, h) in boxes(mask)]
    return "".join(lines).encode()


def yolo(_: int, mask: np.ndarray) -> bytes:
    centres = [
        (v - 1, (x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT) for v, (x, y, w, h) in boxes(mask)
    ]
    return "".join(f"{' '.join(map(str, row))}\n" for row in centres).encode()


def polygons(_: int, mask: np.ndarray) -> bytes:
    shares = [f"{c / (HEIGHT if i % 2 else WIDTH):.4f}" for i, c in enumerate(BLADE)]
    return f"0 {' '.join(shares)}\n".encode()


def lines(folder: str, numbers: range, end: str = "") -> bytes:
    return "".join(f"{folder}scan{n}{end}\n" for n in numbers).encode()


def rows(train: range, flags: str = ",1,-1") -> bytes:
    return ("name,Knife,Gun\n" + "".join(f"scan{n}{flags}\n" for n in train)).encode()


def layouts() -> dict[str, Layout]:
    """A sound data set of each layout, of 5 scans to learn from and 3 others where it has splits."""
    train, rest, both = range(5), range(5, 8), range(8)
    (a, a_json), (b, b_json), (c, c_json) = coco("train", train), coco("easy", rest), coco("images", both)
    names, stated = "\n".join(NAMES).encode(), f"names: [{', '.join(NAMES)}]\nnc: 2\n"
    voc = per_picture("JPEGImages", "Annotations", both, xml, ".xml")
    masks = per_picture("JPEGImages", "SegmentationClass", both, mask_png, ".png")
    sixray = per_picture("JPEGImage", "Annotation", both, xml, ".xml")
    mixed = per_picture("images", "labels", both, polygons, ".txt")
    bare = {f"JPEGImage/scan{n}.png": scan(n)[0] for n in train}
    return {
        "PIDray": Layout({**a, **b, "annotations/xray_train.json": a_json, "annotations/xray_test_easy.json": b_json}),
        "COCO": Layout({**c, "set.json": c_json}),
        "COCO, a json": Layout({**c, "annotations/set.json": c_json}, "annotations/set.json"),
        "Roboflow": Layout(
            {**a, **{k.replace("easy", "test"): v for k, v in b.items()}}
            | {f"{k}/_annotations.coco.json": v for k, v in (("train", a_json), ("test", b_json))}
        ),
        "class ids": Layout({**per_picture("images", "masks", both, mask_png, ".png"), "classes.txt": names}),
        "VOC masks": Layout(
            {**masks, "labelmap.txt": b"background\n" + names}
            | {f"ImageSets/Segmentation/{k}.txt": lines("", v) for k, v in (("train", train), ("val", rest))}
        ),
        "VOC": Layout(
            {**voc} | {f"ImageSets/Main/{k}.txt": lines("", v) for k, v in (("train", train), ("val", rest))},
            masks=False,
        ),
        "SIXray": Layout(
            {**sixray, "ImageSet/10/train.csv": rows(train), "ImageSet/10/test.csv": rows(rest)}, masks=False
        ),
        "OPIXray": Layout(
            per_picture("train/train_image", "train/train_annotation", train, opixray, ".txt")
            | per_picture("test/test_image", "test/test_annotation", rest, opixray, ".txt"),
            masks=False,
        ),
        "YOLO": Layout(
            per_picture("images/train", "labels/train", train, yolo, ".txt")
            | per_picture("images/val", "labels/val", rest, yolo, ".txt")
            | {"data.yaml": f"path: .\ntrain: images/train\nval: images/val\n{stated}".encode()},
            masks=False,
        ),
        "YOLO lists": Layout(
            {
                **mixed,
                "train.txt": lines("./images/", train, ".png"),
                "val.txt": lines("images/", rest, ".png"),
                "data.yaml": f"train: train.txt\nval: val.txt\n{stated}".encode(),
            },
            "data.yaml",
        ),
        "YOLO beside": Layout(
            {**per_picture("data", "data", both, yolo, ".txt"), "data/classes.txt": names}, "data", masks=False
        ),
        "benign csv": Layout(
            {**bare, "ImageSet/10/train.csv": rows(train, ",-1,-1")}, "ImageSet/10/train.csv", benign=True
        ),
        "benign list": Layout({**bare, "scans.txt": lines("JPEGImage/", train, ".png")}, "scans.txt", benign=True),
    }


def write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def prepare(root: Path) -> None:
    """Sound sources beside the cases, for what a case does not damage."""
    write(root / "benign", {f"N000000{n}.png": scan(100 + n)[0] for n in range(3)})
    write(root / "objects", layouts()["COCO"].files)


def arguments(command: str, layout: Layout, rng: random.Random) -> list[str]:
    """The command line, to be run in a case's folder."""
    boxes = ["--masks-from-boxes"] if not layout.masks and rng.random() < 0.9 else []
    data = f"set/{layout.path}"
    if command == "build":
        objects, benign = ("../objects", data) if layout.benign else (data, "../benign")
        fixed = ["--n", "2", "--size", "32", "--workers", "1", "--out", "out"]
        return [command, "--objects", objects, "--backgrounds", benign, *fixed, *boxes]
    if command == "check":
        return [command, data, "--workers", "1", *boxes, *rng.choice(([], [], ["--json"], ["--allow-test"]))]
    return [command, data, "--out", "out", *(["--labels", "all"] if command == "labels" else [])]
