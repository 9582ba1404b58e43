"""The scans of a data set as they are learnt and scored: masks decoded, pictures checked, what is lost listed."""

import hashlib
import json
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import click

from segloc_eval.data import preflight
from segloc_eval.data.scans import Scan, classes_of, name_below, read_object
from segloc_eval.data.splits import Album, Looks, looks
from segloc_synth.sources.backgrounds import read_benign
from segloc_synth.sources.images import BadImage, read_image, upright_size
from segloc_synth.sources.masks import annotations_of
from segloc_synth.sources.problems import DIFFICULT, EMPTY_CLASS, FEW_MASKS, Problem, faults, short
from segloc_synth.sources.records import Layout, Split
from segloc_synth.sources.records import Scan as Labelled
from segloc_synth.sources.rules import read_split
from segloc_synth.sources.text import BadLabel, left_out


class Reader:
    """Reads the splits of one data set: ids unique over all of them, one list of problems, one fingerprint."""

    def __init__(self, root: Path, source: str) -> None:
        self.problems: list[Problem] = []
        self.classes: dict[int, str] = {}
        self.masks = False
        self.looks: dict[int, Looks] = {}
        self._seen: set[int] = set()
        self._root = root
        self._source = source
        self._scans = 0
        self.ignored = 0  # objects that are neither learnt nor scored
        self._unnamed: frozenset[int] = frozenset()
        self._met: set[int] = set()
        self._digest = hashlib.sha256()

    def fingerprint(self) -> str:
        """sha256, in hexadecimal, of all labels read so far, and of the names and lengths of their pictures' files."""
        return self._digest.hexdigest()

    def stop(self) -> None:
        """click.ClickException if a problem is fatal."""
        preflight.stop(self.problems, self._source)

    def fail(self, kind: str, file: str) -> None:
        """Add a fatal problem; the first record that was lost is told with it, or that the objects are all ignored."""
        lost = [problem for problem in faults(self.problems) if problem.kind not in preflight.FATAL]
        why = f"first problem: {lost[0].kind}: {lost[0].where()}" if lost else ""
        if not lost and self.ignored:
            why = f"{self.ignored} objects are crowds (iscrowd 1) or difficult, which are neither learnt nor scored"
        self.note(kind, why, file=file)

    def note(self, kind: str, *records: object, file: str) -> None:
        """Add a problem for each of the records, which lie in `file`, told on a line of bounded length."""
        self.problems += [Problem(kind, short(file), short(record)) for record in records]

    def note_empty_classes(self, split: str, scans: list[Scan]) -> None:
        """Add a problem for each class without an object in `scans`; none where there are no scans."""
        seen = set[int]().union(*map(classes_of, scans))
        self.note(EMPTY_CLASS, *[name for id, name in self.classes.items() if scans and id not in seen], file=split)

    def masked(self, groups: list[list[Scan]], boxes: bool = False) -> list[list[Scan]]:
        """The splits; where most objects of the first that holds any have masks, without the objects that lack one.

        Else no mask is used, and no object is lost. `boxes`: boxes are all that is learnt, so none is lost either way.
        """
        objects = next((things for scans in groups if (things := [o for scan in scans for o in scan.objects])), [])
        bare = sum(thing.mask is None for thing in objects)
        self.masks = 2 * bare < len(objects)
        if self.masks and boxes:
            return groups
        if not self.masks and bare < len(objects):
            self.note(FEW_MASKS, f"{len(objects) - bare} of {len(objects)}", file=self._root.name)
        one_kind = self._with_masks if self.masks else _without_masks
        return [[one_kind(scan) for scan in scans] for scans in groups]

    def _with_masks(self, scan: Scan) -> Scan:
        lost = [f"annotation {thing.id}" for thing in scan.objects if thing.mask is None]
        self.note("annotation without a mask, among others with masks", *lost, file=self._name(scan.path))
        return replace(scan, objects=tuple(thing for thing in scan.objects if thing.mask)) if lost else scan

    def check(self, scans: Iterable[Scan]) -> Iterator[Scan]:
        """Pass on, lazily and in order, the scans whose picture decodes and has the size that its labels say."""
        for scan, (seen, kinds) in _seen_ahead(scans, self._seen):
            self._seen.add(scan.id)
            for kind in kinds:
                self.note(kind, f"image {scan.source_id}", file=self._name(scan.path))
            if seen is not None:
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
            self.note(kind, f"like {self._name(other.path)} of {split}", file=self._name(scan.path))

    def read_benign(self, path: Path, others: dict[str, list[Scan]], allow_test: bool = False) -> list[Scan]:
        """Scans without any object of which no copy is among `others`; click.ClickException where none is left."""
        source = read_benign(path, allow_test)
        self.problems += source.problems
        scans = []
        for place, name in enumerate(source.relative):
            with left_out(self.problems, name):
                width, height = upright_size(source.open_path(place))
                self._scans += 1
                scans.append(Scan(self._scans, name, source.open_path(place), width, height, ()))
        found = list(self.apart(self.check(scans), others))
        if not found:
            raise click.ClickException(
                f"{path}: none of its {len(source.relative)} scans can be used; they are damaged, or like scans with "
                "objects or such as are scored"
            )
        return found

    def read(self, split: Split) -> list[Scan]:
        """The scans of a split that have a file; its categories must be those of the splits before."""
        name = self._name(split.file)
        try:
            found = read_split(split)
        except click.ClickException as error:
            self.note(preflight.UNREADABLE, error.message.removeprefix(f"{split.file}: "), file=name)
            return []
        except OSError as error:
            self.note(preflight.UNREADABLE, f"{error.filename or name}: {error.strerror or error}", file=name)
            return []
        self.problems += found.problems
        if not found.classes:
            self.note(preflight.NO_CATEGORY, "", file=name)
            return []
        if self.classes and found.classes != self.classes:
            names = sorted({theirs for _, theirs in found.classes.items() ^ self.classes.items()})
            self.note(preflight.OTHER_CATEGORIES, f"they differ in {', '.join(names)}", file=name)
            return []
        self.classes = dict(sorted(found.classes.items()))  # one order, whichever json is read last
        self._unnamed |= found.unnamed
        self._digest.update(found.digest.encode())
        self._digest.update(json.dumps(sorted((scan.name, scan.size_in_bytes) for scan in found.scans)).encode())
        return [scan for one in found.scans if (scan := self._read_scan(one)) is not None]

    def _name(self, path: Path) -> str:
        return name_below(path, self._root)

    def _read_scan(self, found: Labelled) -> Scan | None:
        """With masks decoded; None where its class-id picture cannot be used."""
        objects = []
        with left_out(self.problems, found.name):
            width, height = upright_size(found.path) if found.mask else (found.width, found.height)
            for annotation in annotations_of(found, (height, width)):
                with left_out(self.problems, found.name, f"annotation {annotation.id}"):
                    thing = read_object(annotation, width, height)
                    objects.append(thing)
                    self.ignored += thing.ignored
                    if thing.difficult:
                        self.note(DIFFICULT, f"annotation {annotation.id}", file=found.name)
            self._scans += 1
            self._met |= {thing.category_id for thing in objects}
            return Scan(self._scans, found.id, found.path, width, height, tuple(objects))
        return None

    def meet_classes(self, layout: Layout) -> None:
        """keep_classes_met, the objects of splits that are not needed looked at too: classes hang on the data alone."""
        if self._unnamed:
            for scan in (scan for split in layout.splits.values() for scan in read_split(split).scans):
                with suppress(BadLabel, BadImage):  # told where its split is read
                    self._met |= {annotation.class_id for annotation in annotations_of(scan)}
        self.keep_classes_met()

    def keep_classes_met(self) -> None:
        """Of classes whose names are ours, as those of pixel values without names, keep those that have an object."""
        self.classes = {id: name for id, name in self.classes.items() if id not in self._unnamed or id in self._met}


def _without_masks(scan: Scan) -> Scan:
    return replace(scan, objects=tuple(replace(thing, mask=None) for thing in scan.objects))


Seen = tuple[Looks | None, list[str]]  # None: the picture cannot be used; kinds of problem


def _see(scan: Scan) -> Seen:
    try:
        pixels, kinds = read_image(scan.path, expect=(scan.width, scan.height))
        return looks(pixels), kinds
    except BadImage as reason:
        return None, [str(reason)]


def _seen_ahead(scans: Iterable[Scan], known: Container[int]) -> Iterator[tuple[Scan, Seen]]:
    """`_see` of each scan that is not known, in order, some in parallel, never far ahead of the reader."""
    source = iter(scans)
    with ThreadPoolExecutor() as pool:
        while ahead := list(islice(source, 32)):
            seen = pool.map(lambda scan: (None, []) if scan.id in known else _see(scan), ahead)
            yield from zip(ahead, seen, strict=True)
