"""VOC xml files and their pictures, in whatever folders, as COCO data sets; numbers are passed on unchecked."""

import json
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from segloc_eval.data.label_files import NO_TEXT, as_coco, stem_path, with_sizes
from segloc_synth.sources.labelled import ClassIds
from segloc_synth.sources.listing import is_image, list_files
from segloc_synth.sources.problems import MISSING, UNLISTED, Problem
from segloc_synth.sources.voc import BadLabel, Label, read_xml

NO_LABEL = "listed image without a label file"
AMBIGUOUS = "label file that fits several pictures"


class Listing(NamedTuple):
    """Stems of the pictures of a split, and of those among them that are known to hold no object."""

    stems: frozenset[str]
    benign: frozenset[str]


class VocFolder:
    """All pictures and VOC xml files below `root`; the classes are those of all files, PIDray's ids where known."""

    def __init__(self, root: Path) -> None:
        files = list_files(root)
        self.root = root
        self.pictures = [name for name, _ in files if is_image(name)]
        self._labels: dict[str, tuple[list[Label], tuple[int, int]] | str] = {}
        self._digests: dict[str, str] = {}
        for name, _ in files:
            if name.lower().endswith(".xml"):
                content = (root / name).read_bytes()
                self._digests[name] = sha256(content).hexdigest()
                self._labels[name] = _parsed(content)
        read = [labels for labels in self._labels.values() if not isinstance(labels, str)]
        ids = ClassIds()
        self._class_of = {name: ids.id_of(name) for name in sorted({name for found, _ in read for name, _ in found})}
        self._classes = ids.names

    def has(self, folder: str) -> bool:
        """Whether there is an xml file below `folder`, relative to the root; '' is the root."""
        return any(name.startswith(f"{folder}/" if folder else "") for name in self._labels)

    def read(self, below: str, listing: Listing | None, problems: list[Problem]) -> tuple[dict[str, Any], str]:
        """The COCO data set of the pictures whose path begins with `below`, or of those listed; a digest of the labels.

        A listed picture without labels is used when the list knows that it is benign.
        """
        pictures, labels = (
            [n for n in names if (n.startswith(below) if listing is None else PurePosixPath(n).stem in listing.stems)]
            for names in (self.pictures, self._labels)
        )
        label_of = self._pair(pictures, labels, problems)
        entries: list[tuple[str, list[Label], tuple[int, int]]] = []
        without = []
        for name in pictures:
            found = self._labels[label_of[name]] if name in label_of else None
            if isinstance(found, str):
                problems.append(Problem(found, label_of[name]))
            elif found is not None:
                entries.append((name, *found))
            elif listing is not None and PurePosixPath(name).stem in listing.benign:
                entries.append((name, [], (0, 0)))
            else:
                without.append(name)
        if listing is not None:
            lost = listing.stems - {PurePosixPath(name).stem for name in (*pictures, *labels)}
            problems += [Problem(MISSING, stem) for stem in sorted(lost)]
            problems += [Problem(NO_LABEL, name) for name in without]
        elif without:
            problems.append(Problem(UNLISTED, without[0], f"and {len(without) - 1} more" if len(without) > 1 else ""))
        sizes = with_sizes(self.root, [(name, size) for name, _, size in entries], problems)
        objects = {name: [(self._class_of[c], {"bbox": list(box)}) for c, box in found] for name, found, _ in entries}
        used = sorted((name, self._digests[name]) for name in label_of.values())
        return as_coco(sizes, objects, self._classes), sha256(json.dumps(used).encode()).hexdigest()

    def _pair(self, pictures: list[str], labels: list[str], problems: list[Problem]) -> dict[str, str]:
        """Picture -> xml: the one beside it, else the one of the same stem anywhere."""
        beside = {stem_path(name): name for name in pictures}
        anywhere: dict[str, list[str]] = {}
        for name in pictures:
            anywhere.setdefault(PurePosixPath(name).stem, []).append(name)
        label_of: dict[str, str] = {}
        for label in labels:
            near = beside.get(stem_path(label))
            fits = [near] if near else anywhere.get(PurePosixPath(label).stem, [])
            if len(fits) == 1 and fits[0] not in label_of:
                label_of[fits[0]] = label
            else:
                problems.append(Problem(AMBIGUOUS if fits else MISSING, label))
        return label_of


def _parsed(content: bytes) -> tuple[list[Label], tuple[int, int]] | str:
    """Labels and (width, height) of an xml file, or the kind of problem it has."""
    try:
        return read_xml(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return NO_TEXT
    except BadLabel as problem:
        return str(problem)
