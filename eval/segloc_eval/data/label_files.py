"""What data sets with one label file per picture have in common: their splits' folders, sizes, and their COCO form."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import click

from segloc_synth.images import EXIF_ORIENTATION, BadImage, opened
from segloc_synth.problems import Problem

SPLITS = {"train": "train", "trainval": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LONE = ""  # the split of a data set that has only one
NO_TEXT = "label file that is no text in UTF-8"


def by_split(folders: Iterable[Path]) -> dict[str, Path]:
    """Split -> the folder named after it; `trainval` only where there is neither `train` nor `val`.

    click.ClickException where two folders are of one split.
    """
    named = [folder for folder in folders if folder.name.lower() in SPLITS]
    parts = [folder for folder in named if folder.name.lower() != "trainval"]
    whole = not {SPLITS[folder.name.lower()] for folder in parts} & {"train", "val"}
    found: dict[str, Path] = {}
    for folder in named if whole else parts:
        split = SPLITS[folder.name.lower()]
        if split in found:
            raise click.ClickException(
                f"{folder}: is of the split {split}, as is {found[split].name}; keep one of them"
            )
        found[split] = folder
    return found


def stem_path(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def with_sizes(
    folder: Path, entries: Iterable[tuple[str, tuple[int, int]]], problems: list[Problem], upright: bool = False
) -> dict[str, tuple[int, int]]:
    """Picture -> (width, height), read from its header where it is (0, 0); pictures without a good one left out.

    `upright`: as turned by the EXIF tag, which YOLO's tools obey; else as stored.
    """
    entries = list(entries)

    def size(entry: tuple[str, tuple[int, int]]) -> tuple[int, int] | str:
        name, stated = entry
        if min(stated) > 0:
            return stated
        try:
            with opened(folder / name) as image:
                turned = upright and image.getexif().get(EXIF_ORIENTATION, 1) >= 5
                return (image.height, image.width) if turned else (image.width, image.height)
        except (BadImage, OSError) as problem:
            return str(problem)

    sizes = {}
    with ThreadPoolExecutor() as pool:
        for (name, _), found in zip(entries, pool.map(size, entries), strict=True):
            if isinstance(found, str):
                problems.append(Problem(found, name))
            else:
                sizes[name] = found
    return sizes


def as_coco(
    sizes: Mapping[str, tuple[int, int]],
    objects: Mapping[str, list[tuple[int, dict[str, Any]]]],
    classes: Mapping[int, str],
) -> dict[str, Any]:
    """Pictures by their path, and per picture (category id, what is known of the object), as a COCO data set."""
    images = [
        {"id": id, "file_name": name, "width": w, "height": h} for id, (name, (w, h)) in enumerate(sizes.items(), 1)
    ]
    found = [(image["id"], *thing) for image in images for thing in objects.get(str(image["file_name"]), [])]
    annotations = [{"id": id, "image_id": i, "category_id": c, **about} for id, (i, c, about) in enumerate(found, 1)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id, "name": name} for id, name in sorted(classes.items())],
    }
