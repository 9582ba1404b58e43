"""The one list of rules by which a record of any layout can be used, is mended, or is left out and told."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import click

from segloc_synth.sources.images import MAX_PIXELS, BadImage, upright_size
from segloc_synth.sources.listing import reaching
from segloc_synth.sources.paths import Finder
from segloc_synth.sources.problems import (
    BOX_OF_MASK,
    BOX_OUTSIDE,
    SAME_NAME,
    TWICE,
    Problem,
    short,
)
from segloc_synth.sources.records import Annotation, Box, ClassIdPicture, Records, Scan, Shares, Split
from segloc_synth.sources.text import BadLabel
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
NO_ENTRY = "image entry without id or file_name"
NO_SIZE = "image entry whose width or height is no whole number"
IMPOSSIBLE = "image entry of an impossible size"
OTHERS_ID = "image entry whose id another has"
SLACK = 2.0  # pixels by which a box may reach over the edge (rounding)


def read_split(split: Split) -> Records:
    """All that can be used of a split, in the order of its files, with the problems of what cannot or was mended.

    No mask is decoded, and a picture's header is read only where the labels do not state its size.

    click.ClickException when the labels cannot be read at all, or are no COCO data set.
    """
    problems: list[Problem] = []
    with reaching(split.file):
        data, digest = split.load(problems)
        parts = [data.get(k) if isinstance(data, dict) else None for k in ("images", "annotations", "categories")]
        images, annotations, categories = (part if isinstance(part, list) else None for part in parts)
        if images is None or annotations is None or categories is None:
            raise click.ClickException(f"{split.file}: {NOT_COCO}")
        problems = [Problem(problem.kind, short(problem.file), short(problem.record)) for problem in problems]
        told = _Told(split.file.name, problems, split.file.suffix.lower() == ".json")
        class_of, classes, unnamed = _categories(categories, told)
        entries = list(_entries(images, Finder(split.folders), told))
        by_image = _by_image(annotations, {entry.id for entry in entries}, images, told)
        scans = [
            replace(entry.scan, annotations=tuple(_annotations(entry, by_image.get(entry.id, ()), class_of, told)))
            for entry in _sized(entries, told)
        ]
    return Records(scans, classes, digest, problems, frozenset(unnamed))


class _Told:
    """The problems of one label file, and how often it has each id: `unique` where it numbers all its objects."""

    def __init__(self, file: str, problems: list[Problem], unique: bool) -> None:
        self.file, self.problems, self.unique = file, problems, unique
        self.ids: Counter[str] = Counter()

    def add(self, kind: str, record: object, file: str | None = None) -> None:
        self.problems.append(Problem(kind, short(self.file if file is None else file), short(record)))


def _categories(entries: Sequence[Any], told: _Told) -> tuple[dict[Any, int], dict[int, str], set[int]]:
    """Their ids to ours, which are theirs where these are numbers; our ids to names; ids whose names are ours."""
    class_of: dict[Any, int] = {}
    classes: dict[int, str] = {}
    by_name: dict[str, int] = {}
    unnamed = set()
    ids = [identity(entry.get("id")) for entry in entries if isinstance(entry, dict)]
    free = max((id for id in ids if type(id) is int and abs(id) <= LARGEST_ID), default=0)
    for place, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {}
        id, name = identity(fields.get("id")), name_of(fields.get("name"))
        if id is None or id in class_of or (type(id) is int and abs(id) > LARGEST_ID) or fields.get("name") is None:
            told.add(NO_CATEGORY_ID, f"category no. {place}")
            continue
        if name is None:
            told.add("category whose name is not a line of text", f"category {id}")
            continue
        if name.casefold() in by_name:
            told.add(SAME_NAME, f"category {id} {name}")
        elif type(id) is not int:
            free += 1
        own = by_name.setdefault(name.casefold(), id if type(id) is int else free)
        class_of[id] = own
        classes.setdefault(own, name)
        unnamed |= {own} if fields.get("unnamed") is True else set()
    return class_of, classes, unnamed


@dataclass(frozen=True)
class _Entry:
    """An image entry whose file is there; `id` as annotations name it, `label` for messages."""

    id: int | str
    scan: Scan
    label: str


def _entries(images: Sequence[Any], finder: Finder, told: _Told) -> Iterator[_Entry]:
    taken: set[Any] = set()
    paths: set[str] = set()
    for place, image in enumerate(images):
        fields: dict[str, Any] = image if isinstance(image, dict) else {}
        id, name = identity(fields.get("id")), fields.get("file_name")
        if id is None or not is_file_name(name):
            told.add(NO_ENTRY, f"image no. {place}")
            continue
        where = f"image {short(id)}"
        size = _stated_size(fields)
        if isinstance(size, str):
            told.add(size, where, name)
            continue
        if id in taken:
            told.add(OTHERS_ID, where, name)
            continue
        taken.add(id)
        found = finder.find(name)
        if isinstance(found, Problem):
            told.add(found.kind, f"{where} {found.record}".strip(), name)
            continue
        if str(found.path) in paths:
            told.add("image entry of a file that another has", where, name)
            continue
        paths.add(str(found.path))
        if found.note:
            told.add(found.note, where, name)
        mask = fields.get("mask")
        mask = mask if isinstance(mask, ClassIdPicture) else None
        original = fields["id"] if type(fields["id"]) in (int, str) else id
        yield _Entry(id, Scan(name, found.path, *size, (), mask, original, found.size), where)


def _stated_size(image: Mapping[str, Any]) -> tuple[int, int] | str:
    """(width, height), 0 where they are not stated, or the kind of problem."""
    said = image.get("width"), image.get("height")
    if said == (None, None):
        return 0, 0
    width, height = map(whole, said)
    if width is None or height is None:
        return NO_SIZE
    return (width, height) if min(width, height) > 0 and width * height <= MAX_PIXELS else IMPOSSIBLE


def _sized(entries: Sequence[_Entry], told: _Told) -> Iterator[_Entry]:
    """The entries with the sizes of their pictures, read where they are not stated, but for those with class ids."""

    def size(entry: _Entry) -> tuple[int, int] | str:
        try:
            return upright_size(entry.scan.path)
        except BadImage as problem:
            return str(problem)

    with ThreadPoolExecutor() as pool:
        bare = [entry for entry in entries if not (entry.scan.size or entry.scan.mask)]
        read = dict(zip((entry.id for entry in bare), pool.map(size, bare), strict=True))
    for entry in entries:
        found = read.get(entry.id, (entry.scan.width, entry.scan.height))
        if isinstance(found, str):
            told.add(found, entry.label, entry.scan.name)
        else:
            yield replace(entry, scan=replace(entry.scan, width=found[0], height=found[1]))


def _by_image(
    annotations: Sequence[Any], known: set[Any], images: Sequence[Any], told: _Told
) -> dict[Any, list[tuple[str, dict[str, Any]]]]:
    """Annotations by the id of their image, each with its own id, which no other has."""
    listed = {identity(image.get("id")) for image in images if isinstance(image, dict)}
    found: dict[Any, list[tuple[str, dict[str, Any]]]] = {}
    for place, record in enumerate(annotations):
        fields = record if isinstance(record, dict) else {}
        own = fields.get("id", place)
        id = str(own) if type(own) in (int, str) else str(place)
        image = identity(fields.get("image_id"))
        if image is None or image not in listed:
            told.add(UNKNOWN_IMAGE, f"annotation {id if fields else f'no. {place}'}")
            continue
        if image not in known:
            continue  # its image was told
        found.setdefault(image, []).append((id, fields))
    return found


def _annotations(
    entry: _Entry, records: Sequence[tuple[str, dict[str, Any]]], class_of: Mapping[Any, int], told: _Told
) -> Iterator[Annotation]:
    for id, record in records:
        try:
            found, notes = read_annotation(id, record, class_of, entry.scan.width, entry.scan.height)
        except BadLabel as problem:
            told.add(str(problem), f"annotation {id}", entry.scan.name)
            continue
        key = id if told.unique else f"{entry.id}/{id}"
        told.ids[key] += 1
        if told.ids[key] > 1:
            notes.append(TWICE)
            found = replace(found, id=f"{id}({told.ids[key]})")
        for note in notes:
            told.add(note, f"annotation {id}", entry.scan.name)
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
    box: Box | None = None
    stated = _corners(record.get("bbox"), width, height)
    if isinstance(stated, str) and segmentation is None:
        raise BadLabel(stated)
    if isinstance(stated, str):
        notes.append(BOX_OF_MASK)
    elif stated is not None:
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


def _corners(value: Any, width: int, height: int) -> tuple[float, float, float, float] | str | None:
    """x, y, w, h of a box as stated, None where none is, or why it is none."""
    if isinstance(value, Shares):
        x, y, w, h = _pixels(value, width, height)
        x, y = x - w / 2, y - h / 2
    elif value is None or value == [] or value == {} or value == "":
        return None
    else:
        found = numbers(value, 4)
        if found is None:
            return BAD_BOX
        x, y, w, h = found
    return (x, y, w, h) if w > 0 and h > 0 else NO_AREA_BOX


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
