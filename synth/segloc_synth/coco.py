"""The labelled source: COCO files, PIDray's layout among them, read record by record with a list of problems."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from pycocotools import mask as coco_mask

from segloc_synth.files import read_json
from segloc_synth.images import MAX_PIXELS, Pixels
from segloc_synth.problems import CROWD, Problem

# PIDray's categories in its own order, ids 1-12 (the json files of both releases).
PIDRAY_CLASSES = (
    "Baton",
    "Pliers",
    "Hammer",
    "Powerbank",
    "Scissors",
    "Wrench",
    "Gun",
    "Bullet",
    "Sprayer",
    "HandCuffs",
    "Knife",
    "Lighter",
)
# Name of the training json below annotations/, for the ICCV and the journal release.
PIDRAY_TRAIN = ("xray_train.json", "train.json")

FAR = 1e12  # beyond it numbers are no coordinates, and arithmetic on them overflows


class BadMask(ValueError):
    """A segmentation that yields no mask; the message is the kind of problem."""


@dataclass(frozen=True)
class Annotation:
    """One labelled segment: its id in the json, our class id, the COCO segmentation as it stands there."""

    id: str
    class_id: int
    segmentation: Any


@dataclass(frozen=True)
class Scan:
    """One labelled picture; `name` is its path in the source without extension."""

    name: str
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...]


@dataclass
class LabelledSource:
    """A labelled data set; `bottom_rows` lists how many corrupt rows each picture has at its lower edge."""

    path: Path
    kind: str
    scans: list[Scan]
    classes: dict[int, str]
    fingerprint: str
    bottom_rows: int = 0
    problems: list[Problem] = field(default_factory=list)


def segmentation_to_mask(segmentation: Any, height: int, width: int) -> Pixels:
    """Decode a COCO segmentation to a 0/1 mask, uint8 [height, width].

    Takes polygons (several parts are united, parts of under 3 points dropped), compressed and uncompressed RLE.

    Raises:
        BadMask: none of these, of another size than the image, outside of it or without area.
    """
    if isinstance(segmentation, dict):
        rle = _checked_rle(segmentation, height, width)
    elif isinstance(segmentation, list) and segmentation:
        rle = coco_mask.merge(coco_mask.frPyObjects(_checked_parts(segmentation, height, width), height, width))
    else:
        raise BadMask("annotation without a mask")
    try:
        mask = coco_mask.decode(rle)
    except (ValueError, TypeError):
        raise BadMask("damaged RLE") from None
    if mask.sum() != coco_mask.area(rle):  # runs beyond the end of the picture
        raise BadMask("damaged RLE")
    if not mask.any():
        raise BadMask("mask without area")
    return np.asarray(mask, np.uint8)


def _checked_rle(rle: dict[str, Any], height: int, width: int) -> dict[str, Any]:
    counts = rle.get("counts")
    if rle.get("size") != [height, width]:
        raise BadMask("RLE of another size than its image")
    if isinstance(counts, str):
        if not all("0" <= char <= "o" for char in counts):  # six bits a character, from 48 on
            raise BadMask("damaged RLE")
        return {"size": [height, width], "counts": counts.encode()}
    if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
        raise BadMask("damaged RLE")
    if sum(counts) != height * width:
        raise BadMask("damaged RLE")
    return dict(coco_mask.frPyObjects(rle, height, width))


def _checked_parts(parts: list[Any], height: int, width: int) -> list[list[float]]:
    good: list[list[float]] = []
    for part in parts:
        if not isinstance(part, list) or not all(type(number) in (int, float) for number in part):
            raise BadMask("polygon that is no list of numbers")
        if not all(abs(number) < FAR for number in part):  # nan fails too
            raise BadMask("polygon that is no list of numbers")
        if len(part) >= 6 and len(part) % 2 == 0:
            good.append(part)
    if not good:
        raise BadMask("polygon of fewer than 3 points")
    x = np.concatenate([part[0::2] for part in good])
    y = np.concatenate([part[1::2] for part in good])
    outside = x.max() <= 0 or y.max() <= 0 or x.min() >= width or y.min() >= height
    # Rasterising walks along every edge, so a corner far out would cost memory without end.
    far = max(np.abs(x).max() - 2 * width, np.abs(y).max() - 2 * height) > 0
    if outside or far:
        raise BadMask("polygon outside the image")
    return good


def find_coco(path: Path) -> tuple[Path, list[Path], str]:
    """Locate (json, folders to look for images in, kind) of a labelled source; kind is 'pidray' or 'coco'.

    click.ClickException when there is no such path, no json or more than one.
    """
    if not path.exists():
        raise click.ClickException(f"{path}: no such file or folder")
    if path.name in PIDRAY_TRAIN and path.parent.name == "annotations" and (path.parent.parent / "train").is_dir():
        path = path.parent.parent
    if path.is_file():
        return path, [path.parent, path.parent / "images"], "coco"
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


def read_labelled(path: Path) -> LabelledSource:
    """Read a labelled source; records that cannot be used are left out and listed in its `problems`.

    click.ClickException when the file is no COCO file, has no masks at all, or nothing usable is left.
    """
    json_path, folders, kind = find_coco(path)
    data = read_json(json_path)
    parts = ("images", "annotations", "categories")
    if not isinstance(data, dict) or not all(isinstance(data.get(part), list) for part in parts):
        raise click.ClickException(
            f"{json_path}: not a COCO file: it needs the lists images, annotations and categories"
        )
    images, annotations, categories = (data[part] for part in parts)
    problems: list[Problem] = []
    class_of, classes = _read_categories(categories, json_path.name, problems)
    per_image: dict[Any, list[Annotation]] = {}
    known = {image["id"] for image in images if isinstance(image, dict) and _is_id(image.get("id"))}
    masks = 0
    for number, record in enumerate(annotations):
        reason = _annotation_problem(record, class_of, known)
        name = f"annotation {record['id'] if isinstance(record, dict) and 'id' in record else f'no. {number}'}"
        masks += isinstance(record, dict) and bool(record.get("segmentation"))
        if reason:
            problems.append(Problem(reason, json_path.name, name))
            continue
        per_image.setdefault(record["image_id"], []).append(
            Annotation(
                str(record.get("id", number)),
                class_of[record["category_id"]],
                record["segmentation"],
            )
        )
    if annotations and not masks:
        raise click.ClickException(
            f"{json_path}: its annotations are boxes without masks, which cannot be cut out; "
            "name a source with segmentations as --objects"
        )
    scans, sizes = [], []
    for image in images:
        scan = _read_scan(image, per_image, folders, kind, json_path.name, problems)
        if scan is not None:
            scans.append(scan)
            sizes.append((str(image["file_name"]), scan.path.stat().st_size))
    if not scans:
        first = f": {problems[0].kind}: {problems[0].where()}" if problems else ""
        raise click.ClickException(f"{json_path}: nothing usable in it{first}")
    digest = hashlib.sha256(json.dumps(sorted(sizes)).encode())
    digest.update(hashlib.sha256(json_path.read_bytes()).digest())
    # The last pixel row of PIDray's scans is corrupt (near black) in every file looked at.
    return LabelledSource(
        path,
        kind,
        scans,
        classes,
        digest.hexdigest(),
        bottom_rows=int(kind == "pidray"),
        problems=problems,
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str)


def _read_categories(
    categories: list[Any], file: str, problems: list[Problem]
) -> tuple[dict[Any, int], dict[int, str]]:
    """Map the file's category ids to ours: PIDray's id where the name is known (case ignored), 13 on otherwise."""
    by_name = {name.casefold(): (place, name) for place, name in enumerate(PIDRAY_CLASSES, 1)}
    class_of: dict[Any, int] = {}
    classes: dict[int, str] = {}
    for number, category in enumerate(categories):
        usable = isinstance(category, dict) and _is_id(category.get("id")) and isinstance(category.get("name"), str)
        if not usable or category["id"] in class_of:
            problems.append(Problem("category without id or name, or twice", file, f"category no. {number}"))
            continue
        name = category["name"].strip()
        class_id, name = by_name.setdefault(name.casefold(), (len(by_name) + 1, name))
        class_of[category["id"]] = class_id
        classes[class_id] = name
    return class_of, classes


def _annotation_problem(record: Any, class_of: dict[Any, int], known: set[Any]) -> str | None:
    if not isinstance(record, dict) or not _is_id(record.get("image_id")):
        return "annotation that names no image"
    if record["image_id"] not in known:
        return "annotation of an image that the file does not list"
    category = record.get("category_id")
    if not _is_id(category) or category not in class_of:
        return "annotation of an unknown category"
    if record.get("iscrowd"):
        return CROWD
    return None if record.get("segmentation") else "annotation without a mask"


def _read_scan(
    image: Any,
    per_image: dict[Any, list[Annotation]],
    folders: list[Path],
    kind: str,
    file: str,
    problems: list[Problem],
) -> Scan | None:
    """The Scan of one entry of `images`, None when it has no segments or cannot be used (listed in `problems`)."""
    # Popped, so that a second image of the same id cannot get the annotations of the first.
    annotations = per_image.pop(image.get("id"), None) if isinstance(image, dict) and _is_id(image.get("id")) else None
    if annotations is None:
        return None
    name, width, height = (image.get(part) for part in ("file_name", "width", "height"))
    if (
        not isinstance(name, str)
        or not name
        or Path(name).is_absolute()
        or type(width) is not int
        or type(height) is not int
    ):
        problems.append(
            Problem("image entry without relative file_name, width or height", file, f"image {image['id']}")
        )
        return None
    if not 0 < width * height <= MAX_PIXELS or width < 0:
        problems.append(Problem("image entry of an impossible size", file, name))
        return None
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        problems.append(Problem("image file is missing", name, f"({len(annotations)} annotations)"))
        return None
    stem = str(Path(name).with_suffix(""))
    return Scan(f"train/{stem}" if kind == "pidray" else stem, path, width, height, tuple(annotations))
