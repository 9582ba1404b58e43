"""What data sets with one label file per picture have in common: their splits' folders, sizes, and their COCO form."""

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import click

from segloc_eval.numbers.score import MEAN, POOLED
from segloc_synth.sources.images import EXIF_ORIENTATION, BadImage, opened
from segloc_synth.sources.problems import Problem

TRAIN, VAL, TEST = "train", "val", "test"
LEVELS = ("easy", "hard", "hidden")  # PIDray's test splits
SPLITS = {  # words of names that tell a split
    **dict.fromkeys(("train", "training", "trainval"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation"), VAL),
    **dict.fromkeys(("test", "testing"), TEST),
}
PLAIN = ("annotations", "coco", "instances", "labels")  # words that tell none
LONE = ""  # the split of a data set that has only one
NO_TEXT = "label file that is no text in UTF-8"


def split_name(name: str) -> str:
    """The split that a folder's or json's name tells: train, val, test, or what follows `test`; '' when it tells none.

    xray_test_easy, easy_test -> easy; instances_val2017 -> val; hidden -> hidden (a level of PIDray's); scans -> ''.
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in PLAIN]
    known = [SPLITS[word] for word in words if word in SPLITS]
    if known and known[0] != TEST:
        return known[0]
    place = next((i for i, word in enumerate(words) if word in SPLITS), len(words))
    rest = words[place + 1 :] or [word for word in words if word in LEVELS]
    told = "-".join(rest) or (TEST if known else "")
    return f"{TEST}-{told}" if told in (MEAN, POOLED) else told  # the names of overalls


def by_split(folders: Iterable[Path]) -> dict[str, Path]:
    """Split -> the folder of labelled scans whose name tells it; `trainval` only where there is neither train nor val.

    click.ClickException where two folders are of one split, or some are of one and others would go unread.
    """
    folders = list(folders)
    named = {folder: split for folder in folders if (split := split_name(folder.name))}
    unread = [folder for folder in folders if folder not in named]
    if named and unread:
        raise click.ClickException(
            f"{unread[0]}: holds labels, but its name tells no split, as {next(iter(named)).name} does; "
            "name it train, val or test, or move it away"
        )
    parts = {folder: split for folder, split in named.items() if "trainval" not in folder.name.lower()}
    whole = not {TRAIN, VAL} & set(parts.values())
    found: dict[str, Path] = {}
    for folder, split in (named if whole else parts).items():
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
