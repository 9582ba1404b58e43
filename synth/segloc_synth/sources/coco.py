"""COCO files, PIDray's layout among them, read record by record with a list of problems."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from segloc_synth.files import read_json
from segloc_synth.sources.images import MAX_PIXELS
from segloc_synth.sources.labelled import (
    FROM_BOX,
    Annotation,
    ClassIds,
    LabelledSource,
    Scan,
    is_text,
    named_test,
    nothing_usable,
    refuse_test_folders,
)
from segloc_synth.sources.listing import sizes_below, stems
from segloc_synth.sources.problems import CROWD, MISSING, TWICE, Problem

# Name of the training json below annotations/, for the ICCV and the journal release.
PIDRAY_TRAIN = ("xray_train.json", "train.json")
NO_MASK = "annotation without a mask"


def find_coco(path: Path) -> tuple[Path, list[Path], str]:
    """Locate (json, folders to look for images in, kind) of a labelled source; kind is 'pidray' or 'coco'.

    click.ClickException when there is no such path, no json or more than one.
    """
    if not path.exists():
        raise click.ClickException(f"{path}: no such file or folder")
    if path.name in PIDRAY_TRAIN and path.parent.name == "annotations" and (path.parent.parent / "train").is_dir():
        path = path.parent.parent
    if path.is_file():
        folders = [path.parent, path.parent / "images"]
        # annotations/xray_test_easy.json + easy/, instances_val2017.json + val2017/
        if path.parent.name == "annotations":
            beside = sorted(child for child in path.parent.parent.iterdir() if child.is_dir())
            folders += [child for child in beside if child.name == "images" or child.name.lower() in path.stem.lower()]
        return path, folders, "coco"
    for name in PIDRAY_TRAIN:
        if (path / "annotations" / name).is_file() and (path / "train").is_dir():
            return path / "annotations" / name, [path / "train"], "pidray"
    found = sorted(file for file in path.glob("*.json") if not file.name.startswith("."))
    if not found:
        raise click.ClickException(
            f"{path}: no annotations; name a COCO json, a folder that holds one, or PIDray's folder"
        )
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise click.ClickException(f"{path}: several json files ({names}); name the one to use")
    return found[0], [path, path / "images"], "coco"


def read_coco(path: Path, masks_from_boxes: bool, allow_test: bool) -> LabelledSource:
    """Read a COCO file; records that cannot be used are left out and listed in its `problems`.

    `masks_from_boxes` takes annotations without a mask too, if they have a box. `allow_test` takes test splits.

    click.ClickException when the file is no COCO file, has no masks at all, is a test split, or nothing usable is left.
    """
    json_path, folders, kind = find_coco(path)
    if not allow_test and named_test(json_path.name):
        raise click.ClickException(
            f"{json_path}: its name says that it is a test split, which must not feed synthesis; "
            "name the training json, or give --allow-test"
        )
    data = read_json(json_path)
    parts = ("images", "annotations", "categories")
    if not isinstance(data, dict) or not all(isinstance(data.get(part), list) for part in parts):
        raise click.ClickException(
            f"{json_path}: not a COCO file: it needs the lists images, annotations and categories"
        )
    images, annotations, categories = (data[part] for part in parts)
    problems: list[Problem] = []
    class_of, classes = _read_categories(categories, json_path.name, problems)
    known = {image["id"] for image in images if isinstance(image, dict) and _is_id(image.get("id"))}
    per_image = _read_annotations(annotations, class_of, known, masks_from_boxes, json_path.name, problems)
    masks = any(isinstance(record, dict) and record.get("segmentation") for record in annotations)
    if not masks and any(problem.kind == NO_MASK for problem in problems):
        raise click.ClickException(
            f"{json_path}: its annotations are boxes without masks, which cannot be cut out; "
            "name a source with segmentations as --objects, or have masks made with --masks-from-boxes"
        )
    scans, sizes, others = _read_images(images, per_image, folders, json_path.name, problems)
    if not scans:
        raise nothing_usable(json_path, problems)
    if not allow_test:
        refuse_test_folders(path if path.is_dir() else path.parent, (scan.path.parent for scan in scans))
    names = stems(name for name, _ in sizes)
    front = "train/" if kind == "pidray" else ""
    scans = [replace(scan, name=front + name) for scan, name in zip(scans, names, strict=True)]
    derived = any(annotation.derived for found in per_image.values() for annotation in found)
    digest = hashlib.sha256(json.dumps(sorted(sizes)).encode())
    digest.update(hashlib.sha256(json_path.read_bytes()).digest())
    return LabelledSource(
        path,
        kind + ("+boxes" if derived else ""),
        scans,
        classes,
        digest.hexdigest(),
        # The last pixel row of PIDray's scans is corrupt (near black) in every file looked at.
        bottom_rows=int(kind == "pidray"),
        problems=problems,
        others=others,
        folders=[folder for folder in folders if folder.is_dir()],
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _read_categories(
    categories: list[Any], file: str, problems: list[Problem]
) -> tuple[dict[Any, int], dict[int, str]]:
    """Map the file's category ids to ours."""
    ids = ClassIds()
    class_of: dict[Any, int] = {}
    for number, category in enumerate(categories):
        usable = isinstance(category, dict) and _is_id(category.get("id")) and isinstance(category.get("name"), str)
        if not usable or category["id"] in class_of:
            problems.append(Problem("category without id or name, or twice", file, f"category no. {number}"))
            continue
        if not is_text(category["name"]):
            problems.append(Problem("category whose name is not a line of text", file, f"category {category['id']}"))
            continue
        class_of[category["id"]] = ids.id_of(category["name"])
    return class_of, ids.names


def _read_annotations(
    annotations: list[Any],
    class_of: dict[Any, int],
    known: set[Any],
    boxes: bool,
    file: str,
    problems: list[Problem],
) -> dict[Any, list[Annotation]]:
    """The usable annotations by the id of their image, one of the `known`; `boxes`: also those without a mask."""
    per_image: dict[Any, list[Annotation]] = {}
    ids: Counter[str] = Counter()
    for number, record in enumerate(annotations):
        reason = _annotation_problem(record, class_of, known, boxes)
        name = f"annotation {record['id'] if isinstance(record, dict) and 'id' in record else f'no. {number}'}"
        if reason:
            problems.append(Problem(reason, file, name))
            continue
        id = str(record.get("id", number))
        ids[id] += 1
        if ids[id] > 1:
            problems.append(Problem(TWICE, file, name))
            id = f"{id}({ids[id]})"
        segmentation = record.get("segmentation") or None
        id += FROM_BOX if segmentation is None else ""
        found = Annotation(id, class_of[record["category_id"]], segmentation, record.get("bbox"))
        per_image.setdefault(record["image_id"], []).append(found)
    return per_image


def _annotation_problem(record: Any, class_of: dict[Any, int], known: set[Any], boxes: bool) -> str | None:
    if not isinstance(record, dict) or not _is_id(record.get("image_id")):
        return "annotation that names no image"
    if record["image_id"] not in known:
        return "annotation of an image that the file does not list"
    category = record.get("category_id")
    if not _is_id(category) or category not in class_of:
        return "annotation of an unknown category"
    if record.get("iscrowd"):
        return CROWD
    if record.get("segmentation"):
        return None
    if not boxes:
        return NO_MASK
    return None if record.get("bbox") else "annotation without mask or box"


def _read_images(
    images: list[Any],
    per_image: dict[Any, list[Annotation]],
    folders: list[Path],
    file: str,
    problems: list[Problem],
) -> tuple[list[Scan], list[tuple[str, int]], list[Path]]:
    """Scans with annotations, (file_name, bytes) of each, and paths of the pictures without any."""
    size_in = [(folder, sizes_below(folder)) for folder in folders]
    scans, sizes, others = [], [], []
    taken: set[Any] = set()
    for number, image in enumerate(images):
        id, name, width, height = (
            image.get(part) if isinstance(image, dict) else None for part in ("id", "file_name", "width", "height")
        )
        annotations = per_image.get(id, []) if _is_id(id) else []
        where = f"image {id}" if _is_id(id) else f"image no. {number}"
        if not isinstance(name, str) or not name or Path(name).is_absolute() or not _is_id(id):
            problems.append(Problem("image entry without id or relative file_name", file, where))
            continue
        if id in taken:
            problems.append(Problem("image entry whose id another has", file, f"{name} {where}"))
            continue
        taken.add(id)
        if type(width) is not int or type(height) is not int:
            if annotations:
                problems.append(Problem("image entry without a width and height in whole numbers", file, where))
                continue
            width = height = 1  # nothing is drawn on it
        if not 0 < width * height <= MAX_PIXELS or width < 0:
            problems.append(Problem("image entry of an impossible size", file, name))
            continue
        path, size = next(((folder / name, n) for folder, of in size_in if (n := of(name)) is not None), (None, 0))
        if path is None:
            problems.append(Problem(MISSING, name, f"({len(annotations)} annotations)"))
        elif annotations:
            scans.append(Scan("", path, width, height, tuple(annotations)))
            sizes.append((name, size))
        else:
            others.append(path)
    return scans, sizes, others
