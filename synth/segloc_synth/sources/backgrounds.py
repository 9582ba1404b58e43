"""The benign source: scans without labels, and where in them a bag lies."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import click
import cv2
import numpy as np

from segloc_synth.files import absolute
from segloc_synth.sources.images import Pixels
from segloc_synth.sources.layouts.splits import named_test, refuse_test_folders
from segloc_synth.sources.listing import Listed, fingerprint, is_image, list_images, reaching, sizes_below
from segloc_synth.sources.problems import MISSING, Problem, short
from segloc_synth.sources.text import csv_rows, read_text

# A pixel this much darker than the empty belt belongs to something; real belts vary by about 3 grey levels.
BAG_CONTRAST = 10
WHITE_BELT = 0.003  # share of white within a scan from which its belt is white
SMALLEST_BAG = 0.02  # share of the canvas; smaller blobs are loose straps and noise

NEIGHBOURS = 2  # numbers in file names that are no farther apart may show one bag (SIXray's blocks of three)
SIXRAY_POSITIVE = re.compile(r"P\d+")
SIXRAY_NEGATIVE = re.compile(r"N\d{7}")


@dataclass(frozen=True)
class BenignSource:
    """Benign scans below the folder `path`: `relative` are their paths in it, with extension, in sorted order."""

    path: Path
    relative: list[str]
    fingerprint: str
    problems: list[Problem] = field(default_factory=list)

    def open_path(self, place: int) -> Path:
        """Where the scan at `place` lies."""
        return self.path / self.relative[place]


def read_benign(path: Path, allow_test: bool = False) -> BenignSource:
    """List benign scans: of a folder, searched through; of one of SIXray's ImageSet csv files; or of a text list.

    In a folder that looks like SIXray the positives (P00001 and on) are left out; of a csv, every row with a positive
    label. A text list names one picture a line, relative to the list's folder or in full. No picture is opened.

    click.ClickException when there is no such path, it cannot be read, or lists fewer than two pictures; for a list or
    folder of a test split, unless `allow_test`.
    """
    problems: list[Problem] = []
    with reaching(path):
        if path.is_dir():
            root, files = path, _without_positives(path, list_images(path))
        elif not path.exists():
            raise click.ClickException(f"{path}: no such folder")
        elif path.suffix.lower() in (".csv", ".txt", ".lst"):
            if named_test(path.stem) and not allow_test:
                raise click.ClickException(
                    f"{path}: a test split must not feed synthesis; name the training list, or give --allow-test"
                )
            read = _from_csv if path.suffix.lower() == ".csv" else _from_list
            root, files, problems = read(path)
        else:
            raise click.ClickException(
                f"{path}: is a file; name a folder of benign scans as --backgrounds, an ImageSet csv or a text list"
            )
    if len(files) < 2:
        raise click.ClickException(f"{path}: {len(files)} image files in it; a pair needs two different benign scans")
    if not allow_test:
        above = root if path.is_dir() or root == path.parent else Path("/")  # of full paths every folder is looked at
        refuse_test_folders(above, (root / folder for folder in {name.rpartition("/")[0] for name, _ in files}))
    return BenignSource(root, [name for name, _ in files], fingerprint(files), problems)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]


def _without_positives(folder: Path, files: Listed) -> Listed:
    """The files; of a folder that looks like SIXray, without its positives."""
    top = {name.partition("/")[0] for name, _ in files}
    like_sixray = (
        folder.name == "JPEGImage"
        or "JPEGImage" in top
        or any(SIXRAY_NEGATIVE.fullmatch(_stem(name)) for name, _ in files)
        or (folder / "ImageSet").is_dir()
    )
    if not like_sixray:
        return files
    return [(name, size) for name, size in files if not SIXRAY_POSITIVE.fullmatch(_stem(name))]


def _from_csv(path: Path) -> tuple[Path, Listed, list[Problem]]:
    """Negatives of an ImageSet csv: a column of names, then one of 1 (there), -1 (not there), 0 (unsure) per class."""
    rows = csv_rows(read_text(path))
    root = path.parent.parent.parent if path.parent.parent.name == "ImageSet" else path.parent
    if len(rows) < 2 or len(rows[0]) < 2:
        raise click.ClickException(f"{path}: not an ImageSet csv: it needs a column of names and one per class")
    by_stem: dict[str, Listed] = {}
    for found in list_images(root):
        by_stem.setdefault(_stem(found[0]), []).append(found)
    files, problems = [], []
    for number, row in enumerate(rows[1:], 2):
        name, labels = row[0].strip(), [label.strip() for label in row[1:]]
        if len(row) != len(rows[0]) or not set(labels) <= {"1", "-1", "0"}:
            told = short(",".join(row))
            raise click.ClickException(f"{path}, line {number}: {told!r} is no name with a label per class")
        if "1" in labels:
            continue
        stem = _stem(name) if is_image(name) else PurePosixPath(name).name
        there = by_stem.get(stem, [])
        own = [found for found in there if "JPEGImage" in found[0].split("/")] if len(there) > 1 else there
        if len(own) == 1:
            files += own
        elif there:
            either = f"{there[0][0]} or {there[1][0]}"
            raise click.ClickException(f"{path}, line {number}: {name} may be {either}; keep one of them below {root}")
        else:
            problems.append(Problem(MISSING, path.name, name))
    if not files:
        raise click.ClickException(f"{path}: none of its {len(rows) - 1} images lies below {root}")
    return root, sorted(set(files)), problems


def _from_list(path: Path) -> tuple[Path, Listed, list[Problem]]:
    """The pictures of a text list; lines that begin with # are comments. Full paths may lie elsewhere, all together."""
    root = path.parent
    lines = {number: line.strip().replace("\\", "/") for number, line in enumerate(read_text(path).splitlines(), 1)}
    lines = {number: line for number, line in lines.items() if line and not line.startswith("#")}
    own = tuple(f"{folder}/" for folder in (root, absolute(root)))
    if lines and all(line.startswith("/") and not line.startswith(own) for line in lines.values()):
        root = Path(os.path.commonpath([PurePosixPath(line).parent for line in lines.values()]))
        own = (f"{str(root).rstrip('/')}/",)
    size_of = sizes_below(root)
    files = []
    for number, name in lines.items():
        for front in own:
            name = name.removeprefix(front)
        name = str(PurePosixPath(name))
        if name.startswith("/") or ".." in name.split("/"):
            told = short(name)
            raise click.ClickException(f"{path}, line {number}: {told} does not lie below {root}, the list's folder")
        size = size_of(name)
        if size is None:
            raise click.ClickException(f"{path}, line {number}: {short(root / name)}: no such file")
        files.append((name, size))
    return root, sorted(set(files)), []


def neighbours(name: str, other: str) -> bool:
    """Whether two scans may show one bag by the numbers that their names end in."""
    (stem, number), (other_stem, other_number) = numbered(name), numbered(other)
    return stem == other_stem and abs(number - other_number) <= NEIGHBOURS


def numbered(name: str) -> tuple[str, int]:
    """A name as (what stands before its last digits, their number); names without digits have number 0."""
    found = re.search(r"(\d+)\D*$", name)
    return (name[: found.start(1)], int(found[1])) if found else (name, 0)


def bag_mask(pixels: Pixels) -> Pixels:
    """Where bags lie in a scan: 0/1 mask, uint8 [H, W], of RGB [H, W, 3]; holes inside a bag count as bag.

    All zero when the scan holds nothing but belt.
    """
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    belt = _belt(grey)
    thing = (grey < belt - BAG_CONTRAST).astype(np.uint8)
    thing = cv2.morphologyEx(thing, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    reach = max(3, round(max(grey.shape) / 24)) | 1
    closed = cv2.morphologyEx(thing, cv2.MORPH_CLOSE, np.ones((reach, reach), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    large = [outline for outline in outlines if cv2.contourArea(outline) >= SMALLEST_BAG * grey.size]
    return np.asarray(cv2.drawContours(np.zeros_like(grey), large, -1, 1, thickness=cv2.FILLED), np.uint8)


def _belt(grey: Pixels) -> int:
    """The brightest common level: white, or the grey of a grey scanner, whose scan may lie on a white canvas."""
    x, y, width, height = cv2.boundingRect((grey < 250).astype(np.uint8))
    inner = np.ascontiguousarray(grey[y : y + height, x : x + width])
    # Fitted to the canvas it reaches from side to side one way, and has no white of its own.
    padded = (height, width) != grey.shape and (height == len(grey) or width == grey.shape[1])
    grey_belt = padded and (inner >= 250).mean() < WHITE_BELT
    return _percentile(inner if grey_belt else grey, 0.98)


def _percentile(grey: Pixels, share: float) -> int:
    """numpy's percentile, rounded down, by counting grey levels: several times as fast."""
    counts = np.cumsum(cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel(), dtype=np.float64)
    place, rest = divmod(share * (grey.size - 1), 1)
    below, above = np.searchsorted(counts, (place, min(place + 1, grey.size - 1)), side="right").tolist()
    return int(below + rest * (above - below))
