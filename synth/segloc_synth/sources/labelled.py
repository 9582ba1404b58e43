"""What every labelled source is read into, and what is done with several of them: classes merged, scans chosen."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import click

from segloc_synth.files import absolute, is_local
from segloc_synth.sources.listing import EXTENSIONS
from segloc_synth.sources.problems import Problem

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
# Folders of test splits: PIDray's, and the usual one with its pictures in OPIXray's.
TEST_FOLDERS = frozenset({"easy", "hard", "hidden", "test", "test_image"})
MIN_TRUST = 0.68  # least trust, 0 to 1, at which a mask derived from a box is used; chosen on PhantomRay
DERIVATION = 2  # raised whenever masks derived from boxes change
FROM_BOX = "~box"  # ends the id of an annotation, and so the name of a segment, whose mask is derived from a box


@dataclass(frozen=True)
class Annotation:
    """One labelled object: its id in the data set, our class id, and as they stand there, a COCO segmentation and a
    box (x, y, w, h) in pixels, None where there is none. Without a segmentation the mask is derived from the box."""

    id: str
    class_id: int
    segmentation: Any = None
    box: Any = None

    @property
    def derived(self) -> bool:
        """The mask is not the data set's: it is found inside the box."""
        return self.segmentation is None


@dataclass(frozen=True)
class ClassIdPicture:
    """A picture whose pixel values are classes: value -> our class id; 0 is background.

    `void` values are ignored, and so are those of classes that were `left_out`.
    """

    path: Path
    class_of: Mapping[int, int]
    void: frozenset[int] = frozenset()
    left_out: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Scan:
    """One labelled picture; `name` is its path in the source without extension.

    `width` and `height` are 0 where the data set does not state them. Objects are in `annotations`, or in a class-id
    picture, which is not opened before the scan is cut.
    """

    name: str
    path: Path
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    mask: ClassIdPicture | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) as the data set states them."""
        return (self.width, self.height) if self.width and self.height else None


@dataclass
class LabelledSource:
    """A labelled data set; `bottom_rows` lists how many corrupt rows each picture has at its lower edge.

    `kind` tells the layout; it ends in "+boxes" where some masks are derived from boxes, which are used from a trust of
    `min_trust` on. `others` are the pictures
    that it lists without an object to use, `folders` where its pictures lie. `unnamed` are the class ids whose names
    are ours, as "class 3".
    """

    path: Path
    kind: str
    scans: list[Scan]
    classes: dict[int, str]
    fingerprint: str
    bottom_rows: int = 0
    problems: list[Problem] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    unnamed: frozenset[int] = frozenset()
    min_trust: float = MIN_TRUST


def trusting(source: LabelledSource, min_trust: float) -> LabelledSource:
    """The source with masks derived from boxes from a trust of `min_trust` (0 to 1) on. Its fingerprint tells how they
    are derived, and the trust unless it is MIN_TRUST; a source without such masks stays as it is."""
    if not any(annotation.derived for scan in source.scans for annotation in scan.annotations):
        return source
    how = ["boxes", DERIVATION, *([] if min_trust == MIN_TRUST else [min_trust])]
    return replace(source, min_trust=min_trust, fingerprint=_changed(source, how))


def nothing_usable(path: Path, problems: Sequence[Problem]) -> click.ClickException:
    """The error for a source in which no object is left, with the first reason."""
    first = f": {problems[0].kind}: {problems[0].where()}" if problems else ""
    return click.ClickException(f"{path}: nothing usable in it{first}")


def named_test(name: str) -> bool:
    """Whether a file's name tells of a test split: a word in it begins with test, as none in labels_latest does."""
    return re.search(r"(?<![a-z])test", name.lower()) is not None


def refuse_test_folders(root: Path, folders: Iterable[Path]) -> None:
    """click.ClickException when one of the `folders` of pictures of the source in `root` is a test split's, or lies in
    one; `root` itself is looked at, what it lies in is not."""
    above = len(root.absolute().parts) - 1
    for folder in sorted(set(folders), key=str):
        if TEST_FOLDERS & {part.lower() for part in folder.absolute().parts[above:]}:
            raise click.ClickException(
                f"{root}: images lie in {folder}, the folder of a test split, which must not feed synthesis; "
                "name the training split, or give --allow-test"
            )


def is_text(value: Any) -> TypeGuard[str]:
    """A name: text of one line, not blank, that UTF-8 can hold."""
    if not isinstance(value, str) or not value.strip() or len(value.splitlines()) != 1 or "\0" in value:
        return False
    return not any("\ud800" <= char <= "\udfff" for char in value)


class ClassIds:
    """Our class ids by name, case ignored: PIDray's where the name is known, further ids behind, in order met."""

    def __init__(self) -> None:
        self._by_name = {name.casefold(): (place, name) for place, name in enumerate(PIDRAY_CLASSES, 1)}
        self.names: dict[int, str] = {}

    def id_of(self, name: str) -> int:
        """The id of a class, from 1 on; a new one where the name, without spaces around it, is not known yet."""
        name = name.strip()
        class_id, name = self._by_name.setdefault(name.casefold(), (len(self._by_name) + 1, name))
        self.names[class_id] = name
        return class_id


def merge_classes(sources: Sequence[LabelledSource], mapping: Mapping[str, str | None] | None) -> list[LabelledSource]:
    """The sources with one set of class ids. `mapping` (their name -> our name, None leaves the class out) names
    classes anew; names that it lacks stay, but not the numbers that stand for names where two sources have such: they
    mean no class then. Scans that lose all annotations are left out.

    click.ClickException when a name in `mapping` is in no source, or when two sources have classes without names and
    it names none.
    """
    theirs = {name.casefold(): name for source in sources for name in source.classes.values()}
    ours = {name.strip().casefold(): new for name, new in (mapping or {}).items()}
    unknown = [name for name in mapping or {} if name.strip().casefold() not in theirs]
    if unknown:
        names = [name for source in sources for id, name in source.classes.items() if id not in source.unnamed]
        have = sorted({name.strip() for name in names}) or ["class 1, class 2, ... (no names are given)"]
        raise click.ClickException(f"--classes: no class {unknown[0]!r} in the sources, which have: {', '.join(have)}")
    nameless = [source for source in sources if source.unnamed]
    if len(nameless) > 1 and not any(s.classes[id].casefold() in ours for s in nameless for id in s.unnamed):
        raise click.ClickException(
            f"{nameless[0].path} and {nameless[1].path}: classes without names cannot be merged; "
            "add a classes.txt beside the masks, or name them with --classes"
        )
    ids = ClassIds()
    return [_renamed(source, ours, ids, numbers=len(nameless) < 2) for source in sources]


def _renamed(source: LabelledSource, ours: Mapping[str, str | None], ids: ClassIds, numbers: bool) -> LabelledSource:
    """`numbers`: classes without names keep theirs where `ours` names them not either."""
    new_id: dict[int, int | None] = {}
    for old, name in source.classes.items():
        if old in source.unnamed and not numbers and name.casefold() not in ours:
            continue
        new = ours.get(name.casefold(), name)
        new_id[old] = None if new is None else ids.id_of(new)
    classes = {new: ids.names[new] for new in new_id.values() if new is not None}
    if all(old == new for old, new in new_id.items()) and classes == source.classes:
        return source
    scans = [_with_ids(scan, new_id) for scan in source.scans]
    return replace(
        source,
        scans=[scan for scan in scans if scan.annotations or (scan.mask and scan.mask.class_of)],
        classes=classes,
        fingerprint=_changed(source, [[old, new, classes.get(new or 0)] for old, new in new_id.items()]),
        unnamed=frozenset(),
    )


def _with_ids(scan: Scan, new_id: Mapping[int, int | None]) -> Scan:
    kept = tuple(
        replace(annotation, class_id=new)
        for annotation in scan.annotations
        if (new := new_id[annotation.class_id]) is not None
    )
    mask = scan.mask
    if mask is not None:
        class_of = {value: new for value, old in mask.class_of.items() if (new := new_id.get(old)) is not None}
        left_out = {value for value, old in mask.class_of.items() if new_id.get(old, old) is None}
        mask = replace(mask, class_of=class_of, left_out=mask.left_out | left_out)
    return replace(scan, annotations=kept, mask=mask)


def _changed(source: LabelledSource, how: Any) -> str:
    """A fingerprint of the source and what was done to it."""
    return hashlib.sha256(json.dumps([source.fingerprint, how]).encode()).hexdigest()


def prefixed(sources: Sequence[LabelledSource]) -> list[LabelledSource]:
    """The sources; where there are several, with scan names that begin with the source's folder: names stay unique.

    click.ClickException when a source is given twice.
    """
    if len(sources) == 1:
        return list(sources)
    made: list[LabelledSource] = []
    taken: set[str] = set()
    for place, source in enumerate(sources):
        if source.fingerprint in {earlier.fingerprint for earlier in sources[:place]}:
            raise click.ClickException(f"{source.path}: the same data are given twice as --objects")
        folder = source.path.parent if source.path.suffix.lower() == ".json" else source.path
        folder = folder.parent if folder.name == "annotations" else folder
        name = folder.name or "source"
        prefix = next(p for p in (name, *(f"{name}-{n}" for n in range(2, len(sources) + 2))) if p not in taken)
        taken.add(prefix)
        scans = [replace(scan, name=f"{prefix}/{scan.name}") for scan in source.scans]
        made.append(replace(source, scans=scans, fingerprint=_changed(source, prefix)))
    return made


def limit_all(sources: Sequence[LabelledSource], names: Iterable[str]) -> list[LabelledSource]:
    """The sources with the objects of the named scans only; a source of which nothing is named is left out.

    A name is a scan's name, its stem, file name or path, relative or not: the shorter of the two must be the end of
    the longer, and where both have an extension it must be the same. All scans that fit are kept, of several sources
    those whose path it tells most of; a name may be that of a picture without objects.

    click.ClickException for the first name that fits no scan, and when no scan is left.
    """
    by_stem: dict[str, list[tuple[int, int, tuple[str, ...], str, Path]]] = {}
    for which, source in enumerate(sources):
        for place, scan in enumerate(source.scans):
            for parts, extension in {(PurePosixPath(scan.name).parts, ""), _parted(scan.name)}:
                by_stem.setdefault(parts[-1], []).append((which, place, parts, extension, scan.path))
        for other in source.others:
            parts, _ = _parted(str(other))
            by_stem.setdefault(parts[-1], []).append((which, -1, parts, "", other))
    kept: list[set[int]] = [set() for _ in sources]
    for name in names:
        parts, extension = _parted(name.replace("\\", "/"))
        fits = [
            (which, place, path)
            for which, place, own, its, path in by_stem.get(parts[-1] if parts else "", [])
            if all(a == b for a, b in zip(reversed(own), reversed(parts), strict=False))
            and (not (its and extension) or its == extension)
        ]
        if not fits:
            raise click.ClickException(f"--images: no scan {name!r} in {', '.join(str(s.path) for s in sources)}")
        if len({which for which, _, _ in fits}) > 1:  # a path tells which source is meant
            shared = [_shared(parts, path) for _, _, path in fits]
            fits = [fit for fit, count in zip(fits, shared, strict=True) if count == max(shared)]
        for which, place, _ in fits:
            kept[which].add(place)
    limited = []
    for source, places in zip(sources, kept, strict=True):
        scans = [scan for place, scan in enumerate(source.scans) if place in places]
        if scans:
            changed = _changed(source, [scan.name for scan in scans])
            limited.append(replace(source, scans=scans, fingerprint=changed))
    if not limited:
        raise click.ClickException("--images: none of the scans in the list has a labelled object")
    return limited


def _shared(parts: Sequence[str], path: Path) -> int:
    """How many parts a name has in common with the end of a scan's path."""
    own, _ = _parted(str(absolute(path) if is_local(path) else path))
    pairs = zip(reversed(own), reversed(parts), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parted(name: str) -> tuple[tuple[str, ...], str]:
    """The parts of a path, the last without the extension of a picture, and that extension."""
    path = PurePosixPath(name)
    extension = path.suffix if path.suffix.lower() in EXTENSIONS else ""
    stripped = path.with_suffix("") if extension else path
    return tuple(part for part in stripped.parts if part not in ("/", ".")), extension
