"""Data sets with one label file of boxes per picture: VOC xml, and OPIXray's text files."""

import csv
import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import takewhile
from pathlib import Path, PurePosixPath

import click

from segloc_synth.sources.images import MAX_PIXELS
from segloc_synth.sources.labelled import (
    FROM_BOX,
    Annotation,
    ClassIds,
    LabelledSource,
    Scan,
    is_text,
    nothing_usable,
    refuse_test_folders,
)
from segloc_synth.sources.listing import Listed, fingerprint, is_image, list_files, stems
from segloc_synth.sources.problems import MISSING, TEST_SPLIT, Problem

VOC, OPIXRAY = "voc", "opixray"
LABELS = {VOC: ".xml", OPIXRAY: ".txt"}
BOXES_ONLY = (
    "are boxes without masks, which cannot be cut out; name a source with masks as --objects, "
    "or have masks made with --masks-from-boxes"
)

Label = tuple[str, tuple[float, float, float, float]]  # class name; box (x, y, w, h) in pixels


class BadLabel(ValueError):
    """A label file that cannot be used; the message is the kind of problem."""


def is_opixray_line(line: str) -> bool:
    """Whether a line reads `image_name class x1 y1 x2 y2`."""
    words = line.split()
    return len(words) == 6 and is_image(words[0]) and all(_number(word) is not None for word in words[2:])


def read_boxes(path: Path, kind: str, masks_from_boxes: bool, allow_test: bool) -> LabelledSource:
    """Read a folder of pictures with one VOC xml or OPIXray text file each, at any depth, joined by their stems.

    Of several pictures of one stem a label's is the one beside it, else the one whose path has most in common with its
    own. Pictures are not opened. Scans that ImageSets/*/test.txt (VOC), ImageSet/*/test.csv (SIXray) or test_*.txt
    lists (OPIXray) name are left out unless `allow_test`, a folder beside train/ with the test pictures likewise.

    click.ClickException without `masks_from_boxes`, for a test split, and when nothing usable is left.
    """
    if not masks_from_boxes:
        raise click.ClickException(f"{path}: its labels ({LABELS[kind]} files) {BOXES_ONLY}")
    files = list_files(path)
    tests = set() if allow_test else _test_stems(path, files)
    read: Callable[[str], tuple[list[Label], tuple[int, int]]] = read_xml if kind == VOC else read_lines
    problems: list[Problem] = []
    ids = ClassIds()
    used: Listed = []
    scans: list[Scan] = []
    others: list[Path] = []
    digest = sha256()
    for name, (picture, size) in _paired(files, kind, problems):
        if PurePosixPath(picture).stem in tests:
            problems.append(Problem(TEST_SPLIT, picture))
            others.append(path / picture)
            continue
        content = (path / name).read_bytes()
        digest.update(sha256(content).digest())
        try:
            found, (width, height) = read(content.decode("utf-8-sig"))
        except (BadLabel, UnicodeDecodeError) as problem:
            kind_of = str(problem) if isinstance(problem, BadLabel) else "label file that is no text in UTF-8"
            problems.append(Problem(kind_of, name))
            continue
        if not found:
            others.append(path / picture)
            continue
        annotations = tuple(
            Annotation(f"{place}{FROM_BOX}", ids.id_of(label), box=box) for place, (label, box) in enumerate(found, 1)
        )
        scans.append(Scan("", path / picture, width, height, annotations))
        used.append((picture, size))
    if not scans:
        raise nothing_usable(path, problems)
    if not allow_test:
        refuse_test_folders(path, (scan.path.parent for scan in scans))
    digest.update(fingerprint(sorted(used)).encode())
    named = [
        Scan(name, scan.path, scan.width, scan.height, scan.annotations)
        for name, scan in zip(stems(name for name, _ in used), scans, strict=True)
    ]
    return LabelledSource(
        path,
        f"{kind}+boxes",
        named,
        ids.names,
        digest.hexdigest(),
        problems=problems,
        others=others,
        folders=[path],
    )


def _paired(files: Listed, kind: str, problems: list[Problem]) -> Iterator[tuple[str, tuple[str, int]]]:
    """Each label file with its picture and that one's bytes; no picture has two."""
    pictures: dict[str, Listed] = {}
    for name, size in files:
        if is_image(name):
            pictures.setdefault(PurePosixPath(name).stem, []).append((name, size))
    taken: set[str] = set()
    for name, _ in files:
        if not name.endswith(LABELS[kind]):
            continue
        fits = _nearest(name, pictures.get(PurePosixPath(name).stem, []))
        if len(fits) > 1:
            problems.append(Problem("label file that fits several pictures", name))
        elif fits and fits[0][0] not in taken:
            taken.add(fits[0][0])
            yield name, fits[0]
        elif kind != OPIXRAY:  # which has lists of names, readme and the like
            problems.append(Problem(MISSING, name))


def _nearest(label: str, pictures: Listed) -> Listed:
    """Those of the pictures whose folder is most like that of the label: the same one, else by common ends of both."""
    if len(pictures) < 2:
        return pictures
    mine = PurePosixPath(label).parts[:-1]

    def nearness(name: str) -> tuple[bool, int]:
        own = PurePosixPath(name).parts[:-1]
        front = zip(mine, own, strict=False)
        back = zip(reversed(mine), reversed(own), strict=False)
        return own == mine, sum(len(list(takewhile(lambda pair: pair[0] == pair[1], ends))) for ends in (front, back))

    best = max(nearness(name) for name, _ in pictures)
    return [one for one in pictures if nearness(one[0]) == best]


def _test_stems(path: Path, files: Listed) -> set[str]:
    """Stems of the scans that the data set's own lists give to the test split."""
    found: set[str] = set()
    for name, _ in files:
        parts = PurePosixPath(name).parts
        if len(parts) < 2 or not parts[0].startswith("ImageSet") or not parts[-1].startswith("test"):
            continue
        text = (path / name).read_bytes().decode("utf-8-sig", "replace")
        rows = csv.reader(io.StringIO(text)) if name.endswith(".csv") else (line.split() for line in text.splitlines())
        found |= {PurePosixPath(row[0]).stem if is_image(row[0]) else row[0] for row in rows if row}
    return found


def _number(word: str | None) -> float | None:
    try:
        return float(word) if word is not None else None
    except ValueError:
        return None


def _corners(words: list[str | None]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (_number(word) for word in words)
    if x1 is None or y1 is None or x2 is None or y2 is None:
        raise BadLabel("box that is no list of four numbers")
    return x1, y1, x2 - x1, y2 - y1


def read_xml(text: str) -> tuple[list[Label], tuple[int, int]]:
    """Labels of a VOC xml, and (width, height), 0 where it does not say.

    Raises:
        BadLabel: no xml, one with a document type, an impossible size, an object without a name or box.
    """
    if "<!DOCTYPE" in text:  # the only place for entities, which can grow without end; no labelling tool writes it
        raise BadLabel("label file with a document type, which labels do not need")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        raise BadLabel("label file that is no xml") from None
    width, height = (_number(root.findtext(f"size/{side}")) or 0 for side in ("width", "height"))
    if not (0 <= width <= MAX_PIXELS and 0 <= height <= MAX_PIXELS and width * height <= MAX_PIXELS):  # nan fails too
        raise BadLabel("label file with an impossible size")
    return list(_objects(root)), (int(width), int(height))


def _objects(root: ElementTree.Element) -> Iterator[Label]:
    for thing in root.iter("object"):
        name = (thing.findtext("name") or "").strip()
        if not name:
            raise BadLabel("label without a class name")
        if not is_text(name):
            raise BadLabel("label whose class name is not a line of text")
        yield name, _corners([thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")])


def read_lines(text: str) -> tuple[list[Label], tuple[int, int]]:
    """Labels of OPIXray's lines `image_name class x1 y1 x2 y2`; the size is not said. BadLabel for any other line."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if len(words) != 6:
            raise BadLabel("label line that is not `image_name class x1 y1 x2 y2`")
        found.append((words[1], _corners(list(words[2:]))))
    return found, (0, 0)
