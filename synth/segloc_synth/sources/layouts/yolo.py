"""YOLO text files, boxes or polygons, and their pictures; what they tell is shares of the pictures' sides."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click

from segloc_synth.files import in_threads, is_local
from segloc_synth.sources.layouts.splits import LONE, by_lists, by_split
from segloc_synth.sources.listing import child, is_image, list_files, list_images, subfolders
from segloc_synth.sources.lists import stem_path
from segloc_synth.sources.problems import MISSING, UNLABELLED, Problem
from segloc_synth.sources.records import Shares, Split, data_set
from segloc_synth.sources.text import BadLabel, decoded, left_out
from segloc_synth.sources.values import number, numbers, whole

YOLO = "yolo"
LOOKED_INTO = 100  # text files that are read to tell YOLO's labels from other text
NO_LINE = "label line that reads neither `class x y w h` nor `class x1 y1 x2 y2 x3 y3 ...`"
NO_NUMBER = "label line with a number that is none or is not finite"
NO_SHARE = "label line with numbers far beyond 0..1, which are to be shares of the picture's sides"
NO_CLASS = "label line with a class number that has no name"
OTHER_TEXTS = ("classes", "train", "val", "test")  # that lie beside labels


class Part(NamedTuple):
    """A split: pictures below a folder, all or `only` those of these paths below it; their labels lie in another's.

    `lost` are entries of its list that mean no file.
    """

    pictures: Path
    labels: Path
    only: frozenset[str] | None = None
    lost: frozenset[str] = frozenset()


def yolo_parts(root: Path) -> dict[str, Part]:
    """The splits of a YOLO data set as its folders are named, or its lists; empty when it is none."""
    below = subfolders(root)
    images, labels = child(root, "images"), child(root, "labels")
    inside = {f.name: (child(f, "images"), child(f, "labels")) for f in below}
    named = {f.name: (child(images, f.name), f) for f in subfolders(labels)}
    beside = {f.name: (f, f) for f in below}
    for places in (inside, named, {LONE: (images, labels)}, beside, {LONE: (root, root)}):
        there = {name: place for name, place in places.items() if _has_labels(*place)}
        if LONE in there:
            return _by_lists(root, Part(*there[LONE]))
        if there and (found := by_split(there, str(root if places is not named else labels))):
            return {split: Part(*there[name]) for split, name in found.items()}
    return {}


def _by_lists(root: Path, whole_set: Part) -> dict[str, Part]:
    """A data set in one pair of folders, by the lists in its own folder where there are some."""
    files = [name for name, _ in list_files(root)] if whole_set.pictures != root else [p.name for p in root.iterdir()]
    front = whole_set.pictures.name + "/" if whole_set.pictures != root else ""
    pictures = [name for name in files if name.startswith(front) and is_image(name)]
    parts = by_lists(root, files, pictures, set(pictures))
    return {
        split: whole_set._replace(
            only=frozenset(name.removeprefix(front) for name in part.pictures), lost=frozenset(part.lost)
        )
        for split, part in parts.items()
    } or {LONE: whole_set}


def _has_labels(pictures: Path, labels: Path) -> bool:
    """Whether text files stand for pictures; beside these, where other text may lie, one must begin as YOLO's do."""
    texts = _label_of(pictures, labels).values() if pictures.is_dir() else ()
    return bool(texts) and (labels != pictures or any(_begins_as_yolo(labels / t) for t in islice(texts, LOOKED_INTO)))


def _begins_as_yolo(file: Path) -> bool:
    with file.open("rb") as text:
        words = text.readline(10_000).split()
    return len(words) >= 5 and words[0].isdigit()


def yolo_splits(parts: Mapping[str, Part], names: Mapping[int, str], pose: bool) -> dict[str, Split]:
    """The splits, to be loaded; `pose`: lines hold a box and points of a pose.

    click.ClickException where no picture of any split has a label file.
    """
    if not any(_label_of(part.pictures, part.labels) for part in parts.values()):
        part = next(iter(parts.values()))
        raise click.ClickException(
            f"{part.pictures}: none of its pictures has a label; looked for NAME.txt in {part.labels}"
        )
    return {
        split: Split(part.labels, [part.pictures], partial(_load, part, names, pose), tuple(sorted(part.only or ())))
        for split, part in parts.items()
    }


def _texts(labels: Path) -> dict[str, str]:
    """Stem path -> label file in a folder."""
    names = [name for name, _ in list_files(labels)] if labels.is_dir() else []
    texts = {stem_path(name): name for name in names if name.lower().endswith(".txt")}
    return {stem: name for stem, name in texts.items() if stem not in OTHER_TEXTS}


def _label_of(pictures: Path, labels: Path) -> dict[str, str]:
    """Picture in a folder -> its label file in another."""
    texts = _texts(labels)
    return {name: texts[stem] for name, _ in list_images(pictures) if (stem := stem_path(name)) in texts}


def _load(part: Part, names: Mapping[int, str], pose: bool, problems: list[Problem]) -> tuple[dict[str, Any], str]:
    """The COCO data set of pictures and their YOLO labels, and a digest of these and of the classes' names.

    Category ids are class numbers + 1. A picture without a label file, or with an empty one, holds no object.
    """
    pictures, labels, only, lost = part
    found = [name for name, _ in list_images(pictures) if only is None or name in only]
    texts = _texts(labels)
    used = {name: texts[stem] for name in found if (stem := stem_path(name)) in texts}
    if only is not None:
        problems += [Problem(MISSING, name) for name in sorted(lost | only.difference(found))]
    elif labels != pictures:
        known = set(used.values())
        problems += [Problem(MISSING, name) for name in texts.values() if name not in known]
    if not used and found:
        problems.append(Problem(UNLABELLED, found[0], f"of {len(found)}; looked for NAME.txt in {labels.name}"))
    digest = sha256(json.dumps(sorted(names.items())).encode())
    contents = in_threads(lambda text: (labels / text).read_bytes(), used.values(), is_local(labels))
    objects = {}
    for (name, text), content in zip(used.items(), contents, strict=True):
        digest.update(sha256(text.encode("utf-8", "surrogateescape")).digest() + sha256(content).digest())
        objects[name] = _objects(content, text, names, pose, problems)
    entries = (({"file_name": name}, objects.get(name, [])) for name in found)
    return data_set(entries, {number + 1: name for number, name in sorted(names.items())}), digest.hexdigest()


def _objects(
    content: bytes, file: str, names: Mapping[int, str], pose: bool, problems: list[Problem]
) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = []
    with left_out(problems, file):
        lines = decoded(content).splitlines()
        for place, line in ((place, line) for place, line in enumerate(lines, 1) if line.strip()):
            with left_out(problems, file, f"line {place}"):
                number, shares = yolo_line(line, pose)
                if number not in names:
                    raise BadLabel(NO_CLASS)
                key = "bbox" if len(shares) == 4 else "segmentation"
                objects.append({"id": place, "category_id": number + 1, key: Shares(tuple(shares))})
    return objects


def yolo_line(line: str, pose: bool = False) -> tuple[int, list[float]]:
    """Class number and shares of a YOLO line: x, y, w, h of a box (its centre), or x, y of three or more corners.

    Of a line with the points of a pose behind its box, as `pose` or marks of visibility tell, the box.

    Raises:
        BadLabel: none of these, numbers that are not finite, or far outside the picture.
    """
    first, *rest = line.split()
    found = whole(first) if len(first) < 10 and first.isascii() and first[0].isdigit() else None
    if found is None or not (len(rest) == 4 or len(rest) >= 6):
        raise BadLabel(NO_LINE)
    if pose or _has_visibility(rest):
        rest = rest[:4]
    if len(rest) % 2:
        raise BadLabel(NO_LINE)
    shares = numbers(rest)
    if shares is None:
        raise BadLabel(NO_NUMBER)
    if not all(-1 <= share <= 2 for share in shares):
        raise BadLabel(NO_SHARE)
    return found, shares


def _has_visibility(words: Sequence[str]) -> bool:
    """Whether x, y and visibility (0, 1 or 2) of points stand behind a box.

    A polygon may have 0 and 1, at the picture's edge, but no 2, and no odd count of numbers.
    """
    marks = [number(word) for word in words[6::3]]
    whole_points = len(words) >= 7 and len(words[4:]) % 3 == 0 and all(mark in (0, 1, 2) for mark in marks)
    return whole_points and (len(words) % 2 == 1 or 2 in marks)


def labels_of(pictures: Path) -> Path:
    """Where YOLO looks for the labels of pictures in a folder: labels/ for the path's last images/, else beside."""
    images = next((folder for folder in (pictures, *pictures.parents) if folder.name.lower() == "images"), None)
    return child(images.parent, "labels").joinpath(*pictures.relative_to(images).parts) if images else pictures
