"""Data sets with one label file of boxes per picture: VOC xml, and OPIXray's text files."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from hashlib import sha256
from itertools import count, islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from segloc_synth.files import in_threads, is_local
from segloc_synth.sources.layouts.splits import split_pictures
from segloc_synth.sources.listing import is_image
from segloc_synth.sources.lists import Part, in_common
from segloc_synth.sources.problems import MISSING, UNLISTED, Problem
from segloc_synth.sources.records import ClassIds, Layout, Split, data_set
from segloc_synth.sources.text import BadLabel, decoded
from segloc_synth.sources.values import is_text, number, numbers

VOC, OPIXRAY = "voc", "opixray"
NO_LABEL = "listed image without a label file"
AMBIGUOUS = "label file that fits several pictures"
LOOKED_INTO = 20  # text files that are read to tell OPIXray's labels from other text


class Label(NamedTuple):
    """One object of a label file: the name of its class, x, y, w, h in pixels, and VOC's mark of a difficult one."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False


Labels = tuple[list[Label], tuple[int, int]]  # and (width, height) of the picture, 0 where it is not said


def voc_layout(root: Path, files: Sequence[str]) -> Layout | None:
    """The data set of VOC xml files among the `files` below `root`, None where there are none."""
    labels = [name for name in files if name.lower().endswith(".xml")]
    return _layout(root, VOC, files, labels, read_xml) if labels else None


def opixray_layout(root: Path, files: Sequence[str]) -> Layout | None:
    """The data set of text files with OPIXray's lines among the `files` below `root`, None where there are none."""
    stems = {PurePosixPath(name).stem for name in files if is_image(name)}
    labels = [name for name in files if name.lower().endswith(".txt") and PurePosixPath(name).stem in stems]
    if not any(_is_opixray(root / name) for name in islice(labels, LOOKED_INTO)):
        return None
    return _layout(root, OPIXRAY, files, labels, read_lines)


def _layout(
    root: Path, kind: str, files: Sequence[str], labels: Sequence[str], parse: Callable[[str], Labels]
) -> Layout | None:
    pictures = [name for name in files if is_image(name) and not _is_mask(name)]
    label_of, problems = _paired(labels, pictures)
    folder = _LabelFolder(root, pictures, label_of, parse)
    splits = {}
    for name, part in split_pictures(root, files, pictures, label_of).items():
        labelled = tuple(picture for picture in part.pictures if picture in label_of)
        splits[name] = Split(part.listing or root, [root], partial(folder.load, part, problems), labelled)
        problems = []  # told once
    return Layout(root, kind, splits) if splits else None


def _is_mask(name: str) -> bool:
    return any(part.lower().startswith("segmentation") for part in PurePosixPath(name).parts[:-1])


@dataclass(frozen=True)
class _LabelFolder:
    """Pictures and their label files, read once, all of them: the classes are those of all, in order of their names."""

    root: Path
    pictures: Sequence[str]
    label_of: Mapping[str, str]
    parse: Callable[[str], Labels]

    @cached_property
    def labels(self) -> dict[str, tuple[Labels | str, str]]:
        """Picture -> what `_read` finds in its label file."""
        return dict(
            zip(self.label_of, in_threads(self._read, self.label_of.values(), is_local(self.root)), strict=True)
        )

    def _read(self, label: str) -> tuple[Labels | str, str]:
        """What a label file says, or the kind of problem it has; sha256 of its content."""
        content = (self.root / label).read_bytes()
        digest = sha256(content).hexdigest()
        try:
            return self.parse(decoded(content)), digest
        except BadLabel as problem:
            return str(problem), digest

    @cached_property
    def classes(self) -> ClassIds:
        read = [labels[0] for labels, _ in self.labels.values() if not isinstance(labels, str)]
        return ClassIds(sorted({label.name for found in read for label in found}))

    def load(self, part: Part, told: Sequence[Problem], problems: list[Problem]) -> tuple[dict[str, Any], str]:
        """The COCO data set of a part's pictures, and a digest of its labels; `told` joins the problems."""
        problems += [*told, *part.missing()]
        pictures = []
        for name in part.pictures:
            said: Labels | str = ([], (0, 0)) if name in part.benign else NO_LABEL
            if name in self.label_of:
                said, _ = self.labels[name]
            if isinstance(said, str):
                problems.append(Problem(said, self.label_of.get(name, name)))
                continue
            labels, (width, height) = said
            image = {"file_name": name, "width": width or None, "height": height or None}
            pictures.append((image, map(self._annotation, labels, count(1))))
        folders = {PurePosixPath(name).parent for name in part.pictures if part.listing is None}
        bare = [p for p in self.pictures if p not in self.label_of and PurePosixPath(p).parent in folders]
        problems += [Problem(UNLISTED, bare[0], f"and {len(bare) - 1} more" if bare[1:] else "")] if bare else []
        used = sorted((self.label_of[p], self.labels[p][1]) for p in part.pictures if p in self.label_of)
        digest = sha256(json.dumps(used).encode()).hexdigest()
        return data_set(pictures, dict(sorted(self.classes.names.items()))), digest

    def _annotation(self, label: Label, id: int) -> dict[str, Any]:
        class_id = self.classes.id_of(label.name)
        return {"id": id, "category_id": class_id, "bbox": label.box, "difficult": label.difficult}


def _paired(labels: Sequence[str], pictures: Sequence[str]) -> tuple[dict[str, str], list[Problem]]:
    """Picture -> label file, and the files that stay without: the picture beside, else the one whose path is likest."""
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        by_stem.setdefault(PurePosixPath(name).stem, []).append(name)
    label_of: dict[str, str] = {}
    problems = []
    for label in labels:
        fits = _nearest(label, by_stem.get(PurePosixPath(label).stem, []))
        if len(fits) == 1 and fits[0] not in label_of:
            label_of[fits[0]] = label
        else:
            problems.append(Problem(AMBIGUOUS if fits else MISSING, label))
    return label_of, problems


def _nearest(label: str, pictures: list[str]) -> list[str]:
    """Those of the pictures whose folder is most like that of the label: the same one, else by common ends of both."""
    if len(pictures) < 2:
        return pictures
    mine = PurePosixPath(label).parts[:-1]

    def nearness(name: str) -> tuple[bool, int]:
        own = PurePosixPath(name).parts[:-1]
        return own == mine, in_common(mine, own) + in_common(mine[::-1], own[::-1])

    best = max(map(nearness, pictures))
    return [one for one in pictures if nearness(one) == best]


def _corners(words: Sequence[str | None]) -> tuple[float, float, float, float]:
    sides = numbers(words, 4)
    if sides is None:
        raise BadLabel("box that is no list of four numbers")
    x1, y1, x2, y2 = sides
    return x1, y1, x2 - x1, y2 - y1


def read_xml(text: str) -> Labels:
    """Labels of a VOC xml, and (width, height), 0 where it does not say.

    Raises:
        BadLabel: no xml, one with a document type, an impossible size, an object without a name or box.
    """
    if "<!DOCTYPE" in text:  # the only place for entities, which can grow without end; no labelling tool writes it
        raise BadLabel("label file with a document type, which labels do not need")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        raise BadLabel("label file that is no xml") from None
    width, height = (_side(root.findtext(f"size/{side}")) for side in ("width", "height"))
    return list(_objects(root)), (width, height)


def _side(word: str | None) -> int:
    """0 where nothing is said."""
    side = number(word) if word and word.strip() else 0
    if side is None or not 0 <= side < 1e6:
        raise BadLabel("label file with an impossible size")
    return int(side)


def _objects(root: ElementTree.Element) -> Iterator[Label]:
    for thing in root.iter("object"):
        name = (thing.findtext("name") or "").strip()
        if not name:
            raise BadLabel("label without a class name")
        if not is_text(name):
            raise BadLabel("label whose class name is not a line of text")
        box = _corners([thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")])
        yield Label(name, box, (thing.findtext("difficult") or "").strip() in ("1", "true", "True"))


def read_lines(text: str) -> Labels:
    """Labels of OPIXray's lines `image_name class x1 y1 x2 y2`; the size is not said. BadLabel for any other line."""
    found = []
    for words in (line.split() for line in text.splitlines() if line.strip()):
        if len(words) < 6 or not is_image(" ".join(words[:-5])):  # names may have spaces, classes have none
            raise BadLabel("label line that is not `image_name class x1 y1 x2 y2`")
        found.append(Label(words[-5], _corners(words[-4:])))
    return found, (0, 0)


def _is_opixray(file: Path) -> bool:
    """Whether the first line with anything on it is one of OPIXray's."""
    with file.open("rb") as opened:
        head = opened.read(2000)
    head = head[: head.rfind(b"\n") + 1] or head  # no half of a character
    try:
        lines = [line for line in decoded(head).splitlines() if line.strip()]
        return bool(lines and read_lines(lines[0])[0])
    except BadLabel:
        return False
