"""All that is wrong with a data set: every picture and mask decoded, every fault in one list."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segloc_synth.bank.boxes import Doubtful, annotation_mask
from segloc_synth.bank.labelled import MIN_TRUST, LabelledSource, read_labelled
from segloc_synth.bank.scenes import fit
from segloc_synth.console import progress
from segloc_synth.engines import check_stop, run_local
from segloc_synth.sources.backgrounds import BenignSource, read_benign
from segloc_synth.sources.images import BadImage, read_image
from segloc_synth.sources.layouts.find import find_layout_or_none
from segloc_synth.sources.listing import list_images, reaching
from segloc_synth.sources.masks import annotations_of
from segloc_synth.sources.problems import (
    DUPLICATE,
    EMPTY_CLASS,
    NO_BAG,
    SHOWN,
    UNLISTED,
    Problem,
    by_kind,
    describe,
    fate,
    faults,
)
from segloc_synth.sources.records import Scan
from segloc_synth.sources.text import BadLabel

GLANCE = 256  # canvas on which a benign scan is looked at, build's default


@dataclass
class Report:
    """What `check` found; `classes` counts the usable objects of each, and is None for a benign source.

    `trusts` are (file, record, trust) of the masks derived from boxes, which are used from `min_trust` on.
    """

    path: Path
    kind: str
    images: int
    classes: dict[str, int] | None = None
    problems: list[Problem] = field(default_factory=list)
    trusts: list[tuple[str, str, float]] = field(default_factory=list)
    min_trust: float = MIN_TRUST

    @property
    def fine(self) -> bool:
        """No record is lost."""
        return not faults(self.problems)

    def as_dict(self) -> dict[str, Any]:
        """For JSON: problems grouped by kind, with every record."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "fine": self.fine,
            "images": self.images,
            **({} if self.classes is None else {"objects": sum(self.classes.values()), "classes": self.classes}),
            **({"trust": self._trust()} if self.trusts else {}),
            "problems": [
                {
                    "kind": kind,
                    "fate": fate(kind),
                    "count": len(group),
                    "first": [problem.where() for problem in group[:SHOWN]],
                    "records": [{"file": problem.file, "record": problem.record} for problem in group],
                }
                for kind, group in by_kind(self.problems).items()
            ],
        }

    def _trust(self) -> dict[str, Any]:
        """Of masks derived from boxes: how many are used, and which are not."""
        left_out = [trust for trust in self.trusts if trust[2] < self.min_trust]
        return {
            "min_trust": self.min_trust,
            "kept": len(self.trusts) - len(left_out),
            "left_out": len(left_out),
            "mean": round(sum(trust for _, _, trust in self.trusts) / len(self.trusts), 4),
            "below": [{"file": file, "record": record, "trust": trust} for file, record, trust in left_out],
        }

    def lines(self) -> list[str]:
        """For people: what was checked, then a line per kind of problem."""
        what = f"{self.path}: {self.kind}, {self.images} images"
        if self.classes is not None:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(self.classes.items()) if count)
            what += f", {sum(self.classes.values())} objects ({counts or 'none'})"
        return [what, *(f"  {line}" for line in describe(self.problems)), *([] if self.problems else ["  no problem"])]


@dataclass(frozen=True)
class _Seen:
    """One picture looked at: sha256 of its bytes ('' when missing), problems, class ids of its usable objects,
    (file, record, trust) of masks derived from boxes."""

    digest: str
    problems: list[Problem]
    class_ids: list[int]
    trusts: list[tuple[str, str, float]] = field(default_factory=list)


def check(
    path: Path,
    backgrounds: bool,
    allow_test: bool,
    masks_from_boxes: bool,
    workers: int,
    min_trust: float = MIN_TRUST,
) -> Report:
    """Check the labelled or, with `backgrounds` or where no labels are found, benign source at `path`.

    min_trust: least trust, 0 to 1, of a mask derived from a box.

    click.ClickException where `build` would refuse the source as a whole.
    """
    with reaching(path):
        lists = path.suffix.lower() in (".csv", ".txt", ".lst")
        bare = path.is_dir() and find_layout_or_none(path) is None
    if backgrounds or lists or bare:
        return _check_benign(read_benign(path, allow_test), workers)
    return _check_labelled(read_labelled(path, masks_from_boxes, allow_test, min_trust), workers)


def _check_benign(source: BenignSource, workers: int) -> Report:
    count = len(source.relative)
    results = run_local(_look_at_background, ((source.open_path(n), source.relative[n]) for n in range(count)), workers)
    report = Report(source.path, "benign", count, problems=list(source.problems))
    _collect(report, source.relative, progress(results, count, "checking scans"))
    return report


def _check_labelled(source: LabelledSource, workers: int) -> Report:
    bare = [Scan(path.name, path, 0, 0, ()) for path in source.others]
    scans = [*source.scans, *bare]
    results = run_local(partial(_look_at_scan, min_trust=source.min_trust), scans, workers)
    report = Report(source.path, source.kind, len(scans), {}, list(source.problems), min_trust=source.min_trust)
    names = (scan.name for scan in scans)
    counts = _collect(report, names, progress(results, len(scans), "checking scans"))
    # Classes that we named ourselves are there as far as they are met.
    report.classes = {name: counts[id] for id, name in source.classes.items() if id not in source.unnamed or counts[id]}
    report.problems += [Problem(EMPTY_CLASS, name) for name, count in report.classes.items() if not count]
    known = {str(scan.path) for scan in scans}
    for folder in source.folders:
        for name, _ in list_images(folder):
            if str(folder / name) not in known:
                known.add(str(folder / name))
                report.problems.append(Problem(UNLISTED, name))
    return report


def _collect(report: Report, names: Iterable[str], results: Iterator[_Seen]) -> Counter[int]:
    """Gather problems, duplicates among them, into the report; the number of usable objects of each class."""
    first: dict[str, str] = {}
    counts: Counter[int] = Counter()
    for name, seen in zip(names, results, strict=True):
        report.problems += seen.problems
        report.trusts += seen.trusts
        counts.update(seen.class_ids)
        if seen.digest and first.setdefault(seen.digest, name) != name:
            report.problems.append(Problem(DUPLICATE, name, f"(as {first[seen.digest]})"))
    return counts


def _digest(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    return hashlib.sha256(content).hexdigest() if content else ""


def _look_at_background(task: tuple[Path, str]) -> _Seen:
    path, name = task
    check_stop()
    try:
        pixels, kinds = read_image(path, at_least=GLANCE)
        if fit(pixels, GLANCE) is None:
            kinds = [*kinds, NO_BAG]
    except BadImage as problem:
        kinds = [str(problem)]
    return _Seen(_digest(path), [Problem(kind, name) for kind in kinds], [])


def _look_at_scan(scan: Scan, min_trust: float) -> _Seen:
    check_stop()
    found: list[Problem] = []
    good: list[int] = []
    trusts: list[tuple[str, str, float]] = []
    problem_of = partial(Problem, file=scan.name)
    try:
        pixels, kinds = read_image(scan.path, expect=scan.size)
        found += [problem_of(kind) for kind in kinds]
        annotations = annotations_of(scan, pixels.shape[:2])
        for annotation in annotations:
            record = f"annotation {annotation.id}"
            try:
                _, trust = annotation_mask(annotation, pixels, annotations, min_trust)
                good.append(annotation.class_id)
                if annotation.derived:
                    trusts.append((scan.name, record, trust))
            except Doubtful as problem:
                found.append(problem_of(str(problem), record=record))
                trusts.append((scan.name, record, problem.trust))
            except BadLabel as problem:
                found.append(problem_of(str(problem), record=record))
    except (BadImage, BadLabel) as problem:
        found.append(problem_of(str(problem), record=f"({len(scan.annotations)} annotations)"))
    return _Seen(_digest(scan.path), found, good, trusts)
