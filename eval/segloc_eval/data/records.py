"""Scans and their objects, read from COCO data sets record by record: what cannot be used is left out and listed."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import click

from segloc_eval.data import preflight
from segloc_eval.data.layouts import Split
from segloc_eval.data.scans import Scan, classes_of, is_id, read_object, scan_name, short
from segloc_eval.data.splits import Album, Looks, looks
from segloc_synth.sources.images import MAX_PIXELS, BadImage, read_image
from segloc_synth.sources.labelled import is_text
from segloc_synth.sources.masks import BadMask
from segloc_synth.sources.problems import EMPTY_CLASS, MISSING, TWICE, Problem, faults

LARGEST_ID = 2**31 - 1  # of a category


class Reader:
    """Reads the splits of one data set: ids unique over all of them, one list of problems, one fingerprint."""

    def __init__(self, root: Path, source: str) -> None:
        self.problems: list[Problem] = []
        self.classes: dict[int, str] = {}
        self.masks = False
        self.looks: dict[int, Looks] = {}
        self._bad: set[int] = set()
        self._root = root
        self._source = source
        self._scans = 0
        self._digest = hashlib.sha256()

    def fingerprint(self) -> str:
        """sha256, in hexadecimal, of all labels read so far, and of the names and lengths of their pictures' files."""
        return self._digest.hexdigest()

    def stop(self) -> None:
        """click.ClickException if a problem is fatal."""
        preflight.stop(self.problems, self._source)

    def fail(self, kind: str, file: str) -> None:
        """Add a fatal problem; the first record that was lost is told with it."""
        lost = [problem for problem in faults(self.problems) if problem.kind not in preflight.FATAL]
        self.note(kind, f"first problem: {lost[0].kind}: {lost[0].where()}" if lost else "", file=file)

    def note(self, kind: str, *records: object, file: str) -> None:
        """Add a problem for each of the records, which lie in `file`, told on a line of bounded length."""
        self.problems += [Problem(kind, short(file), short(record)) for record in records]

    def note_empty_classes(self, split: str, scans: list[Scan]) -> None:
        """Add a problem for each class without an object in `scans`; none where there are no scans."""
        seen = set[int]().union(*map(classes_of, scans))
        self.note(EMPTY_CLASS, *[name for id, name in self.classes.items() if scans and id not in seen], file=split)

    def masked(self, groups: list[list[Scan]]) -> list[list[Scan]]:
        """The splits; where the first that holds objects has masks, without the objects that lack one."""
        objects = next((things for scans in groups if (things := [o for scan in scans for o in scan.objects])), [])
        self.masks = any(thing.mask for thing in objects)
        if not self.masks:
            return groups
        for scan in (scan for scans in groups for scan in scans):
            bare = [f"annotation {thing.id}" for thing in scan.objects if thing.mask is None]
            self.note("annotation without a mask, among others with masks", *bare, file=self._name(scan))
        return [
            [replace(scan, objects=tuple(thing for thing in scan.objects if thing.mask)) for scan in scans]
            for scans in groups
        ]

    def check(self, scans: Iterable[Scan]) -> Iterator[Scan]:
        """Pass on, lazily and in order, the scans whose picture decodes and has the size that its labels say."""
        for scan, found in _seen_ahead(scans, self.looks, self._bad):
            if found is not None:
                seen, kinds = found
                for kind in kinds:
                    self.note(kind, f"image {scan.source_id}", file=self._name(scan))
                if seen is None:
                    self._bad.add(scan.id)
                else:
                    self.looks[scan.id] = seen
            if scan.id in self.looks:
                yield scan

    def apart(self, scans: Iterable[Scan], others: dict[str, list[Scan]]) -> Iterator[Scan]:
        """Pass on the scans, decoded by `check`, of which no copy is among `others`; the rest are problems."""
        known = [(name, scan) for name, group in others.items() for scan in group]
        album = Album([self.looks[scan.id] for _, scan in known])
        for scan in scans:
            mine = self.looks[scan.id]
            copies = album.copies(mine)
            if not copies:
                yield scan
                continue
            same = [i for i in copies if self.looks[known[i][1].id].digest == mine.digest]
            split, other = known[(same or copies)[0]]
            kind = preflight.LEAK_SAME if same else preflight.LEAK_NEAR
            self.note(kind, f"like {self._name(other)} of {split}", file=self._name(scan))

    def read(self, split: Split) -> list[Scan]:
        """The scans of a split that have a file; its categories must be those of the splits before."""
        name = self._relative(split.file)
        told: list[Problem] = []
        try:
            data, digest = split.read(told)
        except click.ClickException as error:
            self.note(preflight.UNREADABLE, error.message.removeprefix(f"{split.file}: "), file=name)
            return []
        except OSError as error:
            self.note(preflight.UNREADABLE, f"{error.filename or name}: {error.strerror or error}", file=name)
            return []
        self.problems += [Problem(problem.kind, short(problem.file), short(problem.record)) for problem in told]
        parts = [data.get(k) if isinstance(data, dict) else None for k in ("images", "annotations", "categories")]
        if not all(isinstance(part, list) for part in parts):
            self.note(preflight.NOT_COCO, "", file=name)
            return []
        images, annotations, categories = (list(part or []) for part in parts)
        if not self._read_categories(categories, name):
            return []
        ids = (image.get("id") for image in images if isinstance(image, dict))
        objects: dict[int | str, list[Any]] = {id: [] for id in ids if is_id(id)}
        for number, record in enumerate(annotations):
            id = record.get("image_id") if isinstance(record, dict) else None
            if is_id(id) and id in objects:
                objects[id].append(record)
            else:
                number = record.get("id", number) if isinstance(record, dict) else number
                kind = "annotation of an image that the file does not list"
                self.note(kind, f"annotation {short(number)}", file=name)
        given = Counter(a["id"] for a in annotations if isinstance(a, dict) and is_id(a.get("id")))
        self.note(TWICE, *[f"annotation {id}" for id, times in given.items() if times > 1], file=name)
        scans, files = [], []
        for number, image in enumerate(images):
            scan = self._read_scan(image, number, objects, split.folders, name)
            if scan is not None:
                scans.append(scan)
                files.append((image["file_name"], scan.path.stat().st_size))
        self._digest.update(digest.encode())
        self._digest.update(json.dumps(sorted(files)).encode())
        return scans

    def _name(self, scan: Scan) -> str:
        return scan_name(scan, self._root)

    def _relative(self, file: Path) -> str:
        inside = file.is_relative_to(self._root) and file != self._root
        return file.relative_to(self._root).as_posix() if inside else file.name

    def _read_categories(self, categories: list[Any], file: str) -> bool:
        classes: dict[int, str] = {}
        for number, category in enumerate(categories):
            id, name = (category.get(k) if isinstance(category, dict) else None for k in ("id", "name"))
            if (
                type(id) is int
                and abs(id) <= LARGEST_ID
                and is_text(name)
                and not {id, name} & {*classes, *classes.values()}
            ):
                classes[id] = name
            else:
                kind = "category without a number as id, without a name, or twice"
                self.note(kind, f"category no. {number}", file=file)
        if not classes:
            self.note(preflight.NO_CATEGORY, "", file=file)
            return False
        if self.classes and classes != self.classes:
            names = sorted({str(name) for _, name in classes.items() ^ self.classes.items()})
            self.note(preflight.OTHER_CATEGORIES, f"they differ in {', '.join(names)}", file=file)
            return False
        self.classes = dict(sorted(classes.items()))  # one order, whichever json is read last
        return True

    def _read_scan(
        self, image: Any, number: int, objects: dict[int | str, list[Any]], folders: list[Path], file: str
    ) -> Scan | None:
        fields: dict[str, Any] = image if isinstance(image, dict) else {}
        id, name, width, height = (fields.get(key) for key in ("id", "file_name", "width", "height"))
        if not is_id(id) or not is_text(name) or type(width) is not int or type(height) is not int:
            kind = "image entry without id or file_name, or whose width or height is no whole number"
            self.note(kind, f"image no. {number}", file=file)
            return None
        where = f"{short(name)} image {short(id)}"
        if min(width, height) < 1 or width * height > MAX_PIXELS:
            self.note("image entry of an impossible size", where, file=file)
            return None
        if id not in objects:
            self.note("image entry whose id another has", where, file=file)
            return None
        records = objects.pop(id)
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name.replace("\\", "/")).parts:
            self.note(preflight.OUTSIDE, where, file=file)
            return None
        path = next((folder / name for folder in folders if _is_file(folder / name)), None)
        if path is None:
            self.note(MISSING, where, file=file)
            return None
        things = []
        for record in records:
            try:
                things.append(read_object(record, self.classes, width, height))
            except BadMask as reason:
                self.note(str(reason), f"{short(name)} annotation {short(record.get('id', '?'))}", file=file)
        self._scans += 1
        return Scan(self._scans, id, path, width, height, tuple(things))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


Seen = tuple[Looks | None, list[str]]  # None: the picture cannot be used; kinds of problem


def _see(scan: Scan) -> Seen:
    try:
        pixels, kinds = read_image(scan.path, expect=(scan.width, scan.height))
        return looks(pixels), kinds
    except BadImage as reason:
        return None, [str(reason)]


def _seen_ahead(scans: Iterable[Scan], looks_of: dict[int, Looks], bad: set[int]) -> Iterator[tuple[Scan, Seen | None]]:
    """`_see` of each scan, in order, some in parallel, never far ahead of the reader; None for those seen before."""
    source = iter(scans)
    with ThreadPoolExecutor() as pool:
        while ahead := list(islice(source, 32)):
            known = [scan.id in looks_of or scan.id in bad for scan in ahead]
            futures = [None if seen else pool.submit(_see, scan) for scan, seen in zip(ahead, known, strict=True)]
            for scan, future in zip(ahead, futures, strict=True):
                yield scan, future.result() if future else None
