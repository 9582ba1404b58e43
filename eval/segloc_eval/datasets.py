"""Labelled data for evaluation: PIDray's layout or a lone COCO json, checked record by record before any training."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import click
import numpy as np
from pycocotools import mask as coco_mask

from segloc_eval.splits import difference_hash, label_order, split_apart
from segloc_synth.coco import find_coco
from segloc_synth.files import read_json
from segloc_synth.images import MAX_PIXELS, BadImage, read_image
from segloc_synth.masks import FAR, BadMask, segmentation_to_mask
from segloc_synth.problems import USABLE, Problem

# Name of a test split -> its json below annotations/; its images lie in the folder of the split's name.
TESTS = {
    "easy": "xray_test_easy.json",
    "hard": "xray_test_hard.json",
    "hidden": "xray_test_hidden.json",
    "test": "test.json",
}
TRAIN_SHARE = 0.6  # of a lone json
ALL = "all"  # the test splits pooled
SLACK = 2.0  # pixels by which a box may reach over the edge (rounding); it is cut there


@dataclass(frozen=True)
class Object:
    """One labelled object: box (x, y, w, h) and area in the scan's pixels, mask as compressed RLE or None.

    `id` is the annotation's in its own json, for messages.
    """

    id: str
    category_id: int
    box: tuple[float, float, float, float]
    area: float
    crowd: bool
    mask: dict[str, Any] | None


@dataclass(frozen=True)
class Scan:
    """One picture; `id` is unique over all splits, `source_id` is the one in its own json."""

    id: int
    source_id: int | str
    path: Path
    width: int
    height: int
    objects: tuple[Object, ...]


@dataclass(frozen=True)
class Data:
    """What is trained and tested on, below `root`. `classes`: category id to name; `masks`: objects have masks."""

    root: Path
    fingerprint: str
    classes: dict[int, str]
    masks: bool
    train: list[Scan]
    tests: dict[str, list[Scan]]
    problems: list[Problem] = field(default_factory=list)


def load_data(path: Path, labels: int | None, seed: int) -> Data:
    """Read and check a data set; keep `labels` training scans (None: all), stratified by class and nested.

    PIDray's folder gives its own train and test splits; any other COCO json is split 60/40, near-identical scans
    on one side. Training scans without a usable object are left out, as mmdet does. Every kept picture was
    decoded once, so none fails later. Records that cannot be used, or only after a conversion, are in `problems`.

    click.ClickException when the path or json is unusable, or nothing to train or test on is left.
    """
    json_path, folders, kind = find_coco(path)
    reader = _Reader()
    train = reader.read(json_path, folders)
    masks = any(thing.mask for scan in train for thing in scan.objects)
    root = json_path.parent.parent if kind == "pidray" else json_path.parent
    if kind == "pidray":
        files = {name: json_path.parent / file for name, file in TESTS.items()}
        tests = {
            name: list(reader.check(reader.masked(reader.read(file, [root / name]), masks)))
            for name, file in files.items()
            if file.is_file()
        }
        if not tests:
            raise click.ClickException(f"{json_path.parent}: no test split; expected {TESTS['easy']} and the like")
        train = reader.masked(train, masks)
    else:
        usable = list(reader.check(reader.masked(train, masks)))
        hashes = np.array([difference_hash(read_image(scan.path)[0]) for scan in usable], np.uint64)
        first, second = split_apart(hashes, TRAIN_SHARE, seed)
        train, tests = [usable[i] for i in first], {"test": [usable[i] for i in second]}
    train = [scan for scan in train if any(not thing.crowd for thing in scan.objects)]
    order = label_order([{thing.category_id for thing in scan.objects if not thing.crowd} for scan in train], seed)
    ordered = (train[i] for i in order)
    chosen = list(islice(reader.check(ordered) if kind == "pidray" else ordered, labels))
    bad = [problem for problem in reader.problems if problem.kind not in USABLE]
    first_problem = f"; first problem: {bad[0].kind}: {bad[0].where()}" if bad else ""
    if not chosen:
        raise click.ClickException(f"{json_path}: no usable training scan{first_problem}")
    for name, scans in tests.items():
        if not any(scan.objects for scan in scans):
            raise click.ClickException(f"{json_path}: no usable object in test split {name}{first_problem}")
    return Data(root, reader.fingerprint(), reader.classes, masks, chosen, tests, reader.problems)


def pooled(tests: dict[str, list[Scan]]) -> dict[str, list[Scan]]:
    """The test splits and, where there are several, all of them together as `all`."""
    together = [scan for group in tests.values() for scan in group]
    return {**tests, ALL: together} if len(tests) > 1 else tests


def truth(scans: Iterable[Scan], classes: dict[int, str]) -> dict[str, Any]:
    """The scans as a COCO data set (a dict) under their unique ids."""
    scans = list(scans)
    objects = [(scan.id, thing) for scan in scans for thing in scan.objects]
    return {
        "images": [
            {"id": scan.id, "width": scan.width, "height": scan.height, "file_name": scan.path.name} for scan in scans
        ],
        "categories": [{"id": id, "name": name} for id, name in classes.items()],
        "annotations": [
            {
                **{"id": number, "image_id": image, "category_id": thing.category_id},
                **{"bbox": list(thing.box), "area": thing.area, "iscrowd": int(thing.crowd)},
                **({"segmentation": thing.mask} if thing.mask else {}),
            }
            for number, (image, thing) in enumerate(objects, 1)
        ],
    }


class _Reader:
    """Reads json files of one data set: ids unique over all of them, one list of problems, one fingerprint."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.classes: dict[int, str] = {}
        self._scans = 0
        self._digest = hashlib.sha256()

    def fingerprint(self) -> str:
        return self._digest.hexdigest()

    def masked(self, scans: list[Scan], masks: bool) -> list[Scan]:
        """The scans; where the data have `masks`, without the objects that lack one."""
        if not masks:
            return scans
        self.problems += [
            Problem("annotation without a mask, among others with masks", scan.path.name, f"annotation {thing.id}")
            for scan in scans
            for thing in scan.objects
            if thing.mask is None
        ]
        return [replace(scan, objects=tuple(thing for thing in scan.objects if thing.mask)) for scan in scans]

    def check(self, scans: Iterable[Scan]) -> Iterator[Scan]:
        """Pass on, lazily and in order, the scans whose picture decodes and has the size its json says."""
        for scan, usable, kinds in _decoded_ahead(scans):
            self.problems += [Problem(kind, str(scan.path), f"image {scan.source_id}") for kind in kinds]
            if usable:
                yield scan

    def read(self, json_path: Path, folders: list[Path]) -> list[Scan]:
        """The scans of one COCO json that have a file; the categories must be those of the files before."""
        data = read_json(json_path)
        parts = [data.get(k) if isinstance(data, dict) else None for k in ("images", "annotations", "categories")]
        if not all(isinstance(part, list) for part in parts):
            raise click.ClickException(
                f"{json_path}: not a COCO file: it needs the lists images, annotations and categories"
            )
        images, annotations, categories = (list(part or []) for part in parts)
        self._read_categories(categories, json_path)
        ids = (image.get("id") for image in images if isinstance(image, dict))
        objects: dict[int | str, list[Any]] = {id: [] for id in ids if _is_id(id)}
        for number, record in enumerate(annotations):
            id = record.get("image_id") if isinstance(record, dict) else None
            if _is_id(id) and id in objects:
                objects[id].append(record)
            else:
                name = record.get("id", number) if isinstance(record, dict) else number
                self._skip("annotation of an image that the file does not list", json_path, f"annotation {name}")
        scans, files = [], []
        for number, image in enumerate(images):
            scan = self._read_scan(image, number, objects, folders, json_path)
            if scan is not None:
                scans.append(scan)
                files.append((image["file_name"], scan.path.stat().st_size))
        self._digest.update(hashlib.sha256(json_path.read_bytes()).digest())
        self._digest.update(json.dumps(sorted(files)).encode())
        return scans

    def _skip(self, kind: str, file: Path, record: str) -> None:
        self.problems.append(Problem(kind, file.name, record))

    def _read_categories(self, categories: list[Any], json_path: Path) -> None:
        classes: dict[int, str] = {}
        for number, category in enumerate(categories):
            id, name = (category.get(k) if isinstance(category, dict) else None for k in ("id", "name"))
            if type(id) is int and isinstance(name, str) and id not in classes and name not in classes.values():
                classes[id] = name
            else:
                self._skip(
                    "category without a number as id, without a name, or twice", json_path, f"category no. {number}"
                )
        if not classes:
            raise click.ClickException(f"{json_path}: no usable category")
        if self.classes and classes != self.classes:
            raise click.ClickException(f"{json_path}: its categories are not those of the training json")
        self.classes = classes

    def _read_scan(
        self, image: Any, number: int, objects: dict[int | str, list[Any]], folders: list[Path], json_path: Path
    ) -> Scan | None:
        fields: dict[str, Any] = image if isinstance(image, dict) else {}
        id, name, width, height = (fields.get(key) for key in ("id", "file_name", "width", "height"))
        if not _is_id(id) or not isinstance(name, str) or not name or type(width) is not int or type(height) is not int:
            self._skip("image entry without id, file_name, width or height", json_path, f"image no. {number}")
            return None
        if min(width, height) < 1 or width * height > MAX_PIXELS:
            self._skip("image entry of an impossible size", json_path, f"{name} image {id}")
            return None
        if id not in objects:
            self._skip("image entry whose id another has", json_path, f"{name} image {id}")
            return None
        records = objects.pop(id)
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is None:
            self._skip("image file is missing", json_path, f"{name} image {id}")
            return None
        things = []
        for record in records:
            try:
                things.append(_read_object(record, self.classes, width, height))
            except BadMask as reason:
                self._skip(str(reason), json_path, f"{name} annotation {record.get('id', '?')}")
        self._scans += 1
        return Scan(self._scans, id, path, width, height, tuple(things))


def _read_object(record: dict[str, Any], classes: dict[int, str], width: int, height: int) -> Object:
    """One annotation; BadMask with the kind of problem when it cannot be used. Without a box, the mask's is taken."""
    category = record.get("category_id")
    if type(category) is not int or category not in classes:
        raise BadMask("annotation of an unknown category")
    mask = None
    box, area = record.get("bbox"), record.get("area")
    if record.get("segmentation"):
        pixels = segmentation_to_mask(record["segmentation"], height, width)
        encoded = coco_mask.encode(np.asfortranarray(pixels))
        mask = {"size": [height, width], "counts": encoded["counts"].decode()}
        box = coco_mask.toBbox(encoded).tolist() if box is None else box
        area = area or int(pixels.sum())
    if not isinstance(box, list) or len(box) != 4 or not all(type(v) in (int, float) and abs(v) < FAR for v in box):
        raise BadMask("annotation without a box")
    left, top = max(0.0, box[0]), max(0.0, box[1])
    right, bottom = min(width, box[0] + box[2]), min(height, box[1] + box[3])
    if not (right > left and bottom > top):
        raise BadMask("box without area or outside the image")
    if not max(left - box[0], top - box[1], box[0] + box[2] - right, box[1] + box[3] - bottom) <= SLACK:
        raise BadMask("box reaching outside the image")
    inside = (float(left), float(top), right - left, bottom - top)
    extent = inside[2] * inside[3]
    if isinstance(area, int | float) and 0 < area <= width * height:
        extent = float(area)
    return Object(str(record.get("id", "?")), category, inside, extent, bool(record.get("iscrowd")), mask)


def _is_id(value: Any) -> TypeGuard[int | str]:
    return type(value) in (int, str)


def _decoded(scan: Scan) -> tuple[Scan, bool, list[str]]:
    """The scan, whether its picture can be used, and the kinds of problem it has."""
    try:
        return scan, True, read_image(scan.path, expect=(scan.width, scan.height))[1]
    except BadImage as reason:
        return scan, False, [str(reason)]


def _decoded_ahead(scans: Iterable[Scan]) -> Iterator[tuple[Scan, bool, list[str]]]:
    """`_decoded` of each scan, in order, some in parallel, never far ahead of the reader."""
    source = iter(scans)
    with ThreadPoolExecutor() as pool:
        while ahead := list(islice(source, 32)):
            yield from pool.map(_decoded, ahead)
