"""The one list of rules by which a record of any layout can be used, is mended, or is left out and told."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from segloc_synth.sources.images import MAX_PIXELS, BadImage, upright_size
from segloc_synth.sources.listing import reaching
from segloc_synth.sources.paths import Finder
from segloc_synth.sources.problems import BOX_OF_MASK, BOX_OUTSIDE, SAME_NAME, TWICE, Problem, short
from segloc_synth.sources.records import Annotation, Box, ClassIdPicture, Records, Scan, Shares, Split
from segloc_synth.sources.text import BadLabel, left_out
from segloc_synth.sources.values import LARGEST_ID, flag, identity, is_file_name, name_of, number, numbers, whole

NOT_COCO = "not a COCO file: it needs the lists images, annotations and categories"
UNKNOWN_IMAGE = "annotation of an image that the file does not list"
UNKNOWN_CATEGORY = "annotation of an unknown category"
NO_BOX = "annotation without mask or box"
BAD_BOX = "box that is no list of four numbers"
NO_AREA_BOX = "box without area or outside the image"
FAR_OUT = "box mostly outside the image"
NO_FLAG = "annotation whose iscrowd, ignore or difficult is neither 0 nor 1"
NO_CATEGORY_ID = "category without an id or name, or whose id another has"
NO_CATEGORY_NAME = "category whose name is not a line of text"
NO_ENTRY = "image entry without id or file_name"
NO_SIZE = "image entry whose width or height is no whole number"
IMPOSSIBLE = "image entry of an impossible size"
OTHERS_ID = "image entry whose id another has"
OTHERS_FILE = "image entry of a file that another has"
Numbered = list[tuple[str, dict[str, Any]]]  # annotations, each behind its own id
SLACK = 2.0  # pixels by which a box may reach over the edge (rounding)


def read_split(split: Split) -> Records:
    """All that can be used of a split, in the order of its files, with the problems of what cannot or was mended.

    No mask is decoded, and a picture's header is read only where the labels do not state its size.

    click.ClickException when the labels cannot be read at all, or are no COCO data set.
    """
    problems: list[Problem] = []
    with reaching(split.file):
        data, digest = split.load(problems)
        about: dict[str, Any] = data if isinstance(data, dict) else {}
        parts: list[Any] = [about.get(key) for key in ("images", "annotations", "categories")]
        if not all(isinstance(part, list) for part in parts):
            raise click.ClickException(f"{split.file}: {NOT_COCO}")
        images, annotations, categories = parts
        class_of, classes, unnamed = _categories(categories, split.file.name, problems)
        entries = list(_entries(images, Finder(split.folders), split.file.name, problems))
        by_image = _by_image(annotations, images, split.file.name, problems)
        ids = Counter[str]() if split.file.suffix.lower() == ".json" else None  # else each picture has its own ids
        scans = [
            replace(scan, annotations=tuple(_annotations(scan, by_image[identity(scan.id)], class_of, ids, problems)))
            for scan in _sized(entries, problems)
        ]
    told = [Problem(problem.kind, short(problem.file), short(problem.record)) for problem in problems]
    return Records(scans, classes, digest, told, frozenset(unnamed))


def _fields(record: Any) -> dict[str, Any]:
    return record if isinstance(record, dict) else {}


def _categories(
    entries: Sequence[Any], file: str, problems: list[Problem]
) -> tuple[dict[Any, int], dict[int, str], set[int]]:
    """Their ids to ours, which are theirs where these are numbers; our ids to names; ids whose names are ours."""
    class_of: dict[Any, int] = {}
    classes: dict[int, str] = {}
    by_name: dict[str, int] = {}
    unnamed = set()
    ids = [identity(_fields(entry).get("id")) for entry in entries]
    free = max((id for id in ids if type(id) is int and abs(id) <= LARGEST_ID), default=0)
    for place, entry in enumerate(entries):
        fields = _fields(entry)
        id, name = identity(fields.get("id")), name_of(fields.get("name"))
        if id is None or id in class_of or (type(id) is int and abs(id) > LARGEST_ID) or fields.get("name") is None:
            problems.append(Problem(NO_CATEGORY_ID, file, f"category no. {place}"))
            continue
        if name is None:
            problems.append(Problem(NO_CATEGORY_NAME, file, f"category {id}"))
            continue
        if name.casefold() in by_name:
            problems.append(Problem(SAME_NAME, file, f"category {id} {name}"))
        elif type(id) is not int:
            free += 1
        class_of[id] = own = by_name.setdefault(name.casefold(), id if type(id) is int else free)
        classes.setdefault(own, name)
        unnamed |= {own} if fields.get("unnamed") is True else set()
    return class_of, classes, unnamed


def _entries(images: Sequence[Any], finder: Finder, file: str, problems: list[Problem]) -> Iterator[Scan]:
    """The image entries whose file is there, still without their annotations, and without sizes that are not stated."""
    ids: set[Any] = set()
    paths: set[Path] = set()
    for place, image in enumerate(images):
        fields = _fields(image)
        id, name = identity(fields.get("id")), fields.get("file_name")
        if id is None or not is_file_name(name):
            problems.append(Problem(NO_ENTRY, file, f"image no. {place}"))
            continue
        with left_out(problems, name, f"image {short(id)}"):
            size = _stated_size(fields)
            if id in ids:
                raise BadLabel(OTHERS_ID)
            ids.add(id)
            found = finder.find(name)
            if found.path in paths:
                raise BadLabel(OTHERS_FILE)
            paths.add(found.path)
            problems += [Problem(found.note, name, f"image {short(id)}")] if found.note else []
            mask = fields["mask"] if isinstance(fields.get("mask"), ClassIdPicture) else None
            original = fields["id"] if type(fields["id"]) in (int, str) else id
            yield Scan(name, found.path, *size, (), mask, original, found.size)


def _stated_size(image: Mapping[str, Any]) -> tuple[int, int]:
    """(width, height), 0 where they are not stated; BadLabel for what can be no size."""
    said = image.get("width"), image.get("height")
    if said == (None, None):
        return 0, 0
    width, height = map(whole, said)
    if width is None or height is None:
        raise BadLabel(NO_SIZE)
    if min(width, height) <= 0 or width * height > MAX_PIXELS:
        raise BadLabel(IMPOSSIBLE)
    return width, height


def _sized(scans: Sequence[Scan], problems: list[Problem]) -> Iterator[Scan]:
    """The scans with the sizes of their pictures, read where they are not stated, but for those with class ids."""

    def size(scan: Scan) -> tuple[int, int] | BadImage:
        try:
            return upright_size(scan.path)
        except BadImage as problem:
            return problem

    with ThreadPoolExecutor() as pool:
        bare = [scan for scan in scans if not (scan.size or scan.mask)]
        read = dict(zip((scan.id for scan in bare), pool.map(size, bare), strict=True))
    for scan in scans:
        found = read.get(scan.id, (scan.width, scan.height))
        if isinstance(found, BadImage):
            problems.append(Problem(str(found), scan.name, f"image {short(identity(scan.id))}"))
        else:
            yield replace(scan, width=found[0], height=found[1])


def _by_image(
    annotations: Sequence[Any], images: Sequence[Any], file: str, problems: list[Problem]
) -> dict[Any, Numbered]:
    """Annotations by the id of their image, each with its own id."""
    found: dict[Any, Numbered] = {identity(_fields(image).get("id")): [] for image in images}
    found.pop(None, None)
    for place, record in enumerate(annotations):
        fields = _fields(record)
        own = fields.get("id", place)
        id = str(own) if type(own) in (int, str) else str(place)
        mine = found.get(identity(fields.get("image_id")))
        if mine is None:
            problems.append(Problem(UNKNOWN_IMAGE, file, f"annotation {id if fields else f'no. {place}'}"))
        else:
            mine.append((id, fields))
    return found


def _annotations(
    scan: Scan, records: Numbered, class_of: Mapping[Any, int], ids: Counter[str] | None, problems: list[Problem]
) -> Iterator[Annotation]:
    """The annotations of a scan that can be used; an id that another of the scan, or among `ids`, has is renamed."""
    met = Counter[str]() if ids is None else ids
    for id, record in records:
        with left_out(problems, scan.name, f"annotation {id}"):
            found, notes = read_annotation(id, record, class_of, scan.width, scan.height)
            met[id] += 1
            if met[id] > 1:
                notes.append(TWICE)
                found = replace(found, id=f"{id}({met[id]})")
            problems += [Problem(note, scan.name, f"annotation {id}") for note in notes]
            yield found


def read_annotation(
    id: str, record: Mapping[str, Any], class_of: Mapping[Any, int], width: int, height: int
) -> tuple[Annotation, list[str]]:
    """One annotation of a picture of that size in pixels, and the kinds of problems that it was mended of.

    Raises:
        BadLabel: it cannot be used; the kind of problem.
    """
    category = identity(record.get("category_id"))
    if category is None or category not in class_of:
        raise BadLabel(UNKNOWN_CATEGORY)
    crowd, *difficult = (flag(record.get(mark)) for mark in ("iscrowd", "ignore", "difficult"))
    if crowd is None or None in difficult:
        raise BadLabel(NO_FLAG)
    segmentation = _segmentation(record.get("segmentation"), width, height)
    notes = []
    box = stated = None
    try:
        stated = _corners(record.get("bbox"), width, height)
    except BadLabel:
        if segmentation is None:
            raise
        notes.append(BOX_OF_MASK)
    if stated is not None:
        box, beyond = cut_box(*stated, width, height, most=segmentation is None)
        notes += [BOX_OUTSIDE] if beyond > SLACK else []
    if box is None and segmentation is None:
        raise BadLabel(NO_BOX)
    area = number(record.get("area")) or 0.0
    area = float(area) if 0 < area <= width * height else 0.0
    return Annotation(id, class_of[category], segmentation, box, area, crowd, any(difficult)), notes


def _segmentation(value: Any, width: int, height: int) -> Any:
    """None where nothing is drawn: nothing, an empty list, a list of empty ones."""
    if isinstance(value, Shares):
        return [_pixels(value, width, height)]
    if isinstance(value, list):
        if all(isinstance(part, list | str) and not part for part in value):
            return None
        return [value] if numbers(value) else value  # a polygon that is not in a list of its own
    return value or None


def _pixels(shares: Shares, width: int, height: int) -> list[float]:
    return [share * (height if odd % 2 else width) for odd, share in enumerate(shares.values)]


def _corners(value: Any, width: int, height: int) -> Box | None:
    """x, y, w, h of a box as stated, None where none is; BadLabel for what is none."""
    if isinstance(value, Shares):
        x, y, w, h = _pixels(value, width, height)
        x, y = x - w / 2, y - h / 2
    elif value in (None, [], {}, ""):
        return None
    elif (found := numbers(value, 4)) is None:
        raise BadLabel(BAD_BOX)
    else:
        x, y, w, h = found
    if w <= 0 or h <= 0:
        raise BadLabel(NO_AREA_BOX)
    return x, y, w, h


def cut_box(x: float, y: float, w: float, h: float, width: int, height: int, most: bool) -> tuple[Box, float]:
    """A box cut to its picture, and by how many pixels it reached out of it; `most`: half of it must lie inside.

    Raises:
        BadLabel: nothing is left of it, or too little.
    """
    left, top, right, bottom = max(0.0, x), max(0.0, y), min(width, x + w), min(height, y + h)
    if not (right > left and bottom > top):
        raise BadLabel(NO_AREA_BOX)
    if most and (right - left) * (bottom - top) < 0.5 * w * h:
        raise BadLabel(FAR_OUT)
    return (float(left), float(top), right - left, bottom - top), max(left - x, top - y, x + w - right, y + h - bottom)
