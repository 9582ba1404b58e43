"""What synthesis takes of labelled data: the training split, and of its objects those that can be cut out."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from segloc_synth.sources.layouts.class_ids import MASKS
from segloc_synth.sources.layouts.coco import PIDRAY
from segloc_synth.sources.layouts.find import find_layout
from segloc_synth.sources.layouts.splits import LONE, TRAIN, VAL, named_test, refuse_test_folders, refused_test
from segloc_synth.sources.listing import reaching, stems
from segloc_synth.sources.problems import CROWD, NOTED, TEST_SPLIT, USABLE, VAL_SPLIT, Problem
from segloc_synth.sources.records import ClassIds, Layout, Records, Scan
from segloc_synth.sources.rules import read_split

BOXES = "+boxes"  # ends the kind of a source some of whose masks are derived from boxes
MIN_TRUST = 0.64  # least trust, 0 to 1, at which a mask derived from a box is used; chosen on PhantomRay
DERIVATION = 3  # raised whenever masks derived from boxes change
FROM_BOX = "~box"  # ends the id of an annotation, and so the name of a segment, whose mask is derived from a box
NO_MASK = "annotation without a mask"
BOXES_ONLY = (
    "its annotations are boxes without masks, which cannot be cut out; "
    "name a source with segmentations as --objects, or have masks made with --masks-from-boxes"
)


@dataclass
class LabelledSource:
    """A labelled data set; `bottom_rows` lists how many corrupt rows each picture has at its lower edge.

    `kind` tells the layout; it ends in "+boxes" where some masks are derived from boxes. `others` are the pictures that
    it lists without an object to use, `folders` where its pictures lie, and no others do. `unnamed` are the class ids
    whose names are ours, as "class 3". Scans have unique names: their paths in the source without extension.
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

    def changed(self, how: Any) -> str:
        """A fingerprint of the source and of what was done to it, in JSON types."""
        return hashlib.sha256(json.dumps([self.fingerprint, how]).encode()).hexdigest()


def read_labelled(
    path: Path, masks_from_boxes: bool = False, allow_test: bool = False, min_trust: float = MIN_TRUST
) -> LabelledSource:
    """Read a labelled source of any layout (see sources.layouts.find); records that cannot be used are left out and
    listed in its `problems`.

    Of a data set with splits the training split alone is taken; `allow_test` takes all of a folder's. Crowds are no
    objects to cut out. `masks_from_boxes` takes objects without a mask too, and masks derived for them from a trust of
    `min_trust` (0 to 1) on; the fingerprint tells how they are derived, and that trust unless it is MIN_TRUST. Label
    files are read, masks are not decoded, and pictures are opened only where the labels do not state their size.

    click.ClickException when there is no data set, it cannot be read, is a test split (unless `allow_test`), has boxes
    only (unless `masks_from_boxes`), or holds nothing usable.
    """
    layout = find_layout(path)
    with reaching(path):
        source = _read(path, layout, masks_from_boxes, allow_test)
    if not source.kind.endswith(BOXES):
        return source
    how = ["boxes", DERIVATION, *([] if min_trust == MIN_TRUST else [min_trust])]
    return replace(source, min_trust=min_trust, fingerprint=source.changed(how))


def _read(path: Path, layout: Layout, masks_from_boxes: bool, allow_test: bool) -> LabelledSource:
    every = allow_test and path.suffix.lower() != ".json"  # PIDray's training json stands for its folder, but for this
    names = [name for name in layout.splits if every or name in (LONE, TRAIN)]
    if not names:
        raise refused_test(path, f"holds but a test split ({', '.join(layout.splits)})")
    chosen = {name: layout.splits[name] for name in names}
    for split in chosen.values():
        if not allow_test and named_test(split.file.name) and split.file.suffix.lower() == ".json":
            raise refused_test(split.file, "its name says that it is a test split")
    read = {name: read_split(split) for name, split in chosen.items()}
    problems = [problem for records in read.values() for problem in records.problems]
    ids = ClassIds()
    scans: list[Scan] = []
    others: list[Path] = []
    for name, split in layout.splits.items():
        if name not in read:
            problems += [Problem(VAL_SPLIT if name == VAL else TEST_SPLIT, picture) for picture in split.listed]
            others += [split.folders[0] / picture for picture in split.listed]
            continue
        kept = _usable(read[name], ids, masks_from_boxes, problems)
        front = f"{name}/" if name and (layout.kind == PIDRAY or len(read) > 1) else ""
        short = stems(scan.name for scan in kept)
        scans += [replace(scan, name=front + stem) for scan, stem in zip(kept, short, strict=True)]
        known = {scan.path for scan in kept}
        others += [scan.path for scan in read[name].scans if scan.path not in known]
    _accept(path, layout, scans, problems, allow_test)
    derived = any(annotation.derived for scan in scans for annotation in scan.annotations)
    folders = layout.splits[names[0]].folders if len(layout.splits) == 1 else [scan.path.parent for scan in scans]
    shared = {folder for name, split in layout.splits.items() if name not in names for folder in split.folders}
    return LabelledSource(
        path,
        layout.kind + (BOXES if derived else ""),
        scans,
        ids.names,
        _fingerprint(layout, list(read.values()), scans),
        # The last pixel row of PIDray's scans is corrupt (near black) in every file looked at.
        bottom_rows=int(layout.kind == PIDRAY),
        problems=problems,
        others=others,
        folders=[folder for folder in dict.fromkeys(folders) if folder.is_dir() and folder not in shared],
        unnamed=frozenset(ids.id_of(records.classes[id]) for records in read.values() for id in records.unnamed),
    )


def _usable(records: Records, ids: ClassIds, masks_from_boxes: bool, problems: list[Problem]) -> list[Scan]:
    """The scans with an object to cut out, under our class ids; what is left out is added to the problems."""
    new_id = {id: ids.id_of(name) for id, name in records.classes.items()}
    kept = []
    for scan in records.scans:
        annotations = []
        for found in scan.annotations:
            if found.crowd or (found.derived and not masks_from_boxes):
                problems.append(Problem(CROWD if found.crowd else NO_MASK, scan.name, f"annotation {found.id}"))
            else:
                annotations.append(replace(found, id=found.id + FROM_BOX) if found.derived else found)
        kept.append(with_classes(replace(scan, annotations=tuple(annotations)), new_id))
    return [scan for scan in kept if scan.annotations or scan.mask]


def with_classes(scan: Scan, new_id: Mapping[int, int | None]) -> Scan:
    """A scan under new class ids, without the objects of classes whose id is None, or of none."""
    kept = tuple(replace(one, class_id=id) for one in scan.annotations if (id := new_id.get(one.class_id)) is not None)
    mask = scan.mask
    if mask is not None:
        class_of = {value: id for value, old in mask.class_of.items() if (id := new_id.get(old)) is not None}
        left_out = {value for value, old in mask.class_of.items() if new_id.get(old, old) is None}
        mask = replace(mask, class_of=class_of, left_out=mask.left_out | left_out)
    return replace(scan, annotations=kept, mask=mask)


def _accept(path: Path, layout: Layout, scans: list[Scan], problems: list[Problem], allow_test: bool) -> None:
    """click.ClickException when nothing is left to cut out, or it is of a test split."""
    first = next(iter(layout.splits.values())).file
    named = first if path.is_dir() and len(layout.splits) == 1 and first.is_file() else path
    if not scans:
        faults = [f": {problem.kind}: {problem.where()}" for problem in problems if problem.kind not in USABLE | NOTED]
        boxes = any(problem.kind == NO_MASK for problem in problems)
        raise click.ClickException(
            f"{named}: {BOXES_ONLY if boxes else ''.join(['nothing usable in it', *faults[:1]])}"
        )
    if not allow_test:
        refuse_test_folders(path if path.is_dir() else path.parent, (scan.path.parent for scan in scans))


def _fingerprint(layout: Layout, read: list[Records], scans: list[Scan]) -> str:
    """sha256 of the labels and of the names and bytes of the pictures that are used.

    Names as labels have them, so that it does not hang on the path; a class-id picture's are in its digest.
    """
    if layout.kind == MASKS and len(read) == 1:
        return read[0].digest
    used = {scan.path for scan in scans}
    sizes = [(scan.name, scan.size_in_bytes) for records in read for scan in records.scans if scan.path in used]
    digest = hashlib.sha256(json.dumps(sorted(sizes)).encode())
    for records in read:
        digest.update(bytes.fromhex(records.digest))
    return digest.hexdigest()
