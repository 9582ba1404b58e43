"""YOLO text files, boxes or polygons, and their pictures as COCO data sets; shares are turned into pixels."""

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from segloc_eval.data.label_files import LONE, NO_TEXT, as_coco, by_split, stem_path, with_sizes
from segloc_synth.sources.listing import list_files, list_images
from segloc_synth.sources.problems import MISSING, Problem
from segloc_synth.sources.voc import BadLabel

LOOKED_INTO = 100  # text files that are read to tell YOLO's labels from other text
NO_LINE = "label line that reads neither `class x y w h` nor `class x1 y1 x2 y2 x3 y3 ...`"
NO_NUMBER = "label line with a number that is none or is not finite"
NO_SHARE = "label line with numbers far beyond 0..1, which are to be shares of the picture's sides"
NO_CLASS = "label line with a class number that has no name"


class Part(NamedTuple):
    """A split: pictures below a folder, all or `only` those of these paths below it; their labels lie in another's."""

    pictures: Path
    labels: Path
    only: frozenset[str] | None = None


def yolo_folders(root: Path) -> dict[str, Part]:
    """The splits of a YOLO data set as its folders are named; empty when it is none."""
    below = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    inside = by_split(f for f in below if _has_labels(f / "images", f / "labels"))
    found = {split: Part(folder / "images", folder / "labels") for split, folder in inside.items()}
    if not found and (root / "labels").is_dir():
        named = by_split(f for f in sorted((root / "labels").iterdir()) if _has_labels(root / "images" / f.name, f))
        found = {split: Part(root / "images" / folder.name, folder) for split, folder in named.items()}
        if not found and _has_labels(root / "images", root / "labels"):
            found = {LONE: Part(root / "images", root / "labels")}
    if not found:
        beside = by_split(f for f in below if _has_labels(f, f))
        found = {split: Part(folder, folder) for split, folder in beside.items()}
    if not found and _has_labels(root, root):
        found = {LONE: Part(root, root)}
    return found


def _has_labels(pictures: Path, labels: Path) -> bool:
    """Whether text files stand for pictures; beside these, where other text may lie, one must begin as YOLO's do."""
    if not pictures.is_dir() or not labels.is_dir():
        return False
    texts = {stem_path(name) for name, _ in list_files(labels) if name.endswith(".txt")}
    matching = (stem for stem in (stem_path(name) for name, _ in list_images(pictures)) if stem in texts)
    if labels != pictures:
        return next(matching, None) is not None
    return any(_begins_as_yolo(labels / f"{stem}.txt") for stem in islice(matching, LOOKED_INTO))


def _begins_as_yolo(file: Path) -> bool:
    with file.open("rb") as text:
        words = text.readline(10_000).split()
    return len(words) >= 5 and words[0].isdigit()


def read_yolo(part: Part, names: Mapping[int, str], problems: list[Problem]) -> tuple[dict[str, Any], str]:
    """The COCO data set of pictures and their YOLO labels, and a digest of these and of the classes' names.

    Category ids are class numbers + 1. A picture without a label file, or with an empty one, holds no object.
    """
    pictures, labels, only = part
    found = [name for name, _ in list_images(pictures) if only is None or name in only]
    texts = {stem_path(name): name for name, _ in list_files(labels) if name.endswith(".txt")}
    texts = {stem: name for stem, name in texts.items() if stem not in ("classes", "train", "val", "test")}
    stems = {stem_path(name) for name in found}
    if only is not None:
        problems += [Problem(MISSING, name) for name in sorted(only.difference(found))]
    elif labels != pictures:
        problems += [Problem(MISSING, name) for stem, name in texts.items() if stem not in stems]
    sizes = with_sizes(pictures, [(name, (0, 0)) for name in found], problems, upright=True)
    objects: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    digest = sha256(json.dumps(sorted(names.items())).encode())
    for name, (width, height) in sizes.items():
        text = texts.get(stem_path(name))
        if text is None:
            continue
        content = (labels / text).read_bytes()
        digest.update(sha256(text.encode("utf-8", "surrogateescape")).digest() + sha256(content).digest())
        objects[name] = _yolo_objects(content, text, names, width, height, problems)
    return as_coco(sizes, objects, {number + 1: name for number, name in names.items()}), digest.hexdigest()


def _yolo_objects(
    content: bytes, file: str, names: Mapping[int, str], width: int, height: int, problems: list[Problem]
) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        problems.append(Problem(NO_TEXT, file))
        return []
    objects: list[tuple[int, dict[str, Any]]] = []
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            number, shares = yolo_line(line)
            if number not in names:
                raise BadLabel(NO_CLASS)
        except BadLabel as problem:
            problems.append(Problem(str(problem), file, f"line {place}"))
            continue
        pixels = [share * (height if odd % 2 else width) for odd, share in enumerate(shares)]
        if len(pixels) == 4:
            x, y, w, h = pixels
            objects.append((number + 1, {"bbox": [x - w / 2, y - h / 2, w, h]}))
        else:
            objects.append((number + 1, {"segmentation": [pixels]}))
    return objects


def yolo_line(line: str) -> tuple[int, list[float]]:
    """Class number and shares of a YOLO line: x, y, w, h of a box (its centre), or x, y of three or more corners.

    Raises:
        BadLabel: none of these, numbers that are not finite, or far outside the picture.
    """
    first, *rest = line.split()
    if not (first.isascii() and first.isdecimal() and len(first) < 10) or not (
        len(rest) == 4 or (len(rest) >= 6 and len(rest) % 2 == 0)
    ):
        raise BadLabel(NO_LINE)
    shares = [_finite(word) for word in rest]
    good = [share for share in shares if share is not None]
    if len(good) < len(shares):
        raise BadLabel(NO_NUMBER)
    if not all(-1 <= share <= 2 for share in good):
        raise BadLabel(NO_SHARE)
    return int(first), good


def _finite(word: str | bytes) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
