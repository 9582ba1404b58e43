"""The bank: segments cut out and backgrounds fitted to the canvas, made once per source and size, then mapped.

An entry is a folder in the user's cache named by a hash of all that its content depends on. Objects are stored as
flat RGBA bytes, backgrounds as one array of pictures and one of packed bag masks; workers map these files, so
that memory does not grow with their number.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from segloc_synth.backgrounds import BenignSource, bag_mask
from segloc_synth.console import progress
from segloc_synth.engines import check_stop, run_local
from segloc_synth.files import cache_dir, read_json, write_json
from segloc_synth.images import BadImage, Pixels, fit_to_canvas, read_image
from segloc_synth.labelled import LabelledSource
from segloc_synth.problems import Problem
from segloc_synth.segments import Segment, cut_segments

VERSION = 1  # raised whenever prepared pixels change


class Objects:
    """The prepared segments of a labelled source; opened from a bank folder, pixels mapped."""

    def __init__(self, folder: Path) -> None:
        index = read_json(folder / "index.json")
        self.rows: list[dict[str, Any]] = index["rows"]
        self.problems = [Problem(**problem) for problem in index["problems"]]
        self.classes = {int(class_id): name for class_id, name in index["classes"].items()}
        # An empty file cannot be mapped.
        self._pixels = np.memmap(folder / "pixels.bin", np.uint8, "r") if self.rows else np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self.rows)

    def used_classes(self) -> list[int]:
        """Ids of the classes that have a segment, ascending."""
        return sorted({row["class_id"] for row in self.rows})

    def __getitem__(self, place: int) -> Segment:
        row = self.rows[place]
        shape = (*row["shape"], 4)
        rgba = self._pixels[row["offset"] : row["offset"] + int(np.prod(shape))].reshape(shape)
        return Segment(row["name"], row["class_id"], np.asarray(rgba), tuple(row["carrier"]), row["zoom"])


class Backgrounds:
    """The prepared benign scans; opened from a bank folder, pixels mapped."""

    def __init__(self, folder: Path) -> None:
        index = read_json(folder / "index.json")
        self.names: list[str] = index["names"]
        self.rows: list[int] = index["rows"]
        self.problems = [Problem(**problem) for problem in index["problems"]]
        self._pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        self._bags = np.load(folder / "bags.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.names)

    def pixels(self, place: int) -> Pixels:
        """RGB uint8 [size, size, 3], read-only."""
        return np.asarray(self._pixels[self.rows[place]])

    def bag(self, place: int) -> Pixels:
        """0/1 mask of the bag, uint8 [size, size]."""
        return np.unpackbits(self._bags[self.rows[place]], axis=1, count=self._pixels.shape[2])


def prepare_objects(source: LabelledSource, size: int, workers: int) -> tuple[Path, Objects]:
    """Folder and content of the bank entry for `source` at canvas `size`, made if need be.

    click.ClickException when no segment is usable.
    """
    folder = _entry("objects", f"{source.kind} {source.fingerprint}", size)
    if not folder.exists():
        with _new_entry(folder) as tmp:
            _write_objects(tmp, source, size, workers)
    objects = Objects(folder)
    if not len(objects):
        first = [*source.problems, *objects.problems][0]
        raise click.ClickException(f"{source.path}: no usable segment; {first.kind}: {first.where()}")
    return folder, objects


def prepare_backgrounds(source: BenignSource, size: int, workers: int) -> tuple[Path, Backgrounds]:
    """Folder and content of the bank entry for `source` at canvas `size`, made if need be.

    click.ClickException when fewer than two scans are usable.
    """
    folder = _entry("backgrounds", source.fingerprint, size)
    if not folder.exists():
        with _new_entry(folder) as tmp:
            _write_backgrounds(tmp, source, size, workers)
    backgrounds = Backgrounds(folder)
    if len(backgrounds) < 2:
        first = backgrounds.problems[0]
        raise click.ClickException(
            f"{source.path}: {len(backgrounds)} usable scans, a pair needs two; {first.kind}: {first.where()}"
        )
    return folder, backgrounds


def _entry(kind: str, fingerprint: str, size: int) -> Path:
    identity = json.dumps([VERSION, kind, fingerprint, size, cv2.__version__])
    return cache_dir() / "bank" / f"{kind}-{size}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


@contextmanager
def _new_entry(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well; a racing build's entry is as good."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield tmp
        if not folder.exists():
            tmp.rename(folder)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def _write_objects(folder: Path, source: LabelledSource, size: int, workers: int) -> None:
    rows: list[dict[str, Any]] = []
    problems: list[Problem] = []
    work = partial(cut_segments, size=size, bottom_rows=source.bottom_rows)
    results = progress(run_local(work, source.scans, workers), len(source.scans), "cutting segments")
    with (folder / "pixels.bin").open("wb") as file:
        offset = 0
        for segments, found in results:
            problems += found
            for segment in segments:
                height, width = segment.rgba.shape[:2]
                file.write(segment.rgba.tobytes())
                rows.append(
                    {
                        "name": segment.name,
                        "class_id": segment.class_id,
                        "shape": [height, width],
                        "offset": offset,
                        "carrier": list(segment.carrier),
                        "zoom": segment.zoom,
                    }
                )
                offset += segment.rgba.size
    index = {
        "classes": {str(class_id): name for class_id, name in source.classes.items()},
        "rows": rows,
        "problems": [problem.as_dict() for problem in problems],
    }
    write_json(folder / "index.json", index, indent=None)


def _write_backgrounds(folder: Path, source: BenignSource, size: int, workers: int) -> None:
    count = len(source.relative)
    needed, free = count * size * size * 3, shutil.disk_usage(folder).free
    if needed > free:  # a mapped file that outgrows its disk would end the process without a word
        raise click.ClickException(
            f"{source.path}: {count} backgrounds at {size} px take {needed / 1e9:.0f} GB in {folder.parent}, "
            f"which has {free / 1e9:.0f} GB free; set SEGLOC_CACHE to a larger disk, or take fewer"
        )
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, (count, size, size, 3))
    bags = np.lib.format.open_memmap(folder / "bags.npy", "w+", np.uint8, (count, size, (size + 7) // 8))
    index: dict[str, list[Any]] = {"names": [], "rows": [], "problems": []}
    results = progress(
        run_local(partial(fit_background, size=size), map(source.open_path, range(count)), workers),
        count,
        "fitting backgrounds",
    )
    for place, (picture, kinds) in enumerate(results):
        index["problems"] += [Problem(kind, source.relative[place]).as_dict() for kind in kinds]
        if picture is None:
            continue
        pixels[place] = picture
        bags[place] = np.packbits(bag_mask(picture), axis=1)
        index["names"].append(source.names[place])
        index["rows"].append(place)
    pixels.flush()
    bags.flush()
    write_json(folder / "index.json", index, indent=None)


def fit_background(path: Path, size: int) -> tuple[Pixels | None, list[str]]:
    """A benign scan on the canvas, RGB uint8 [size, size, 3], and kinds of problems; None when unusable."""
    check_stop()
    try:
        pixels, kinds = read_image(path, at_least=2 * size)
    except BadImage as problem:
        return None, [str(problem)]
    picture = fit_to_canvas(pixels, size)
    if not bag_mask(picture).any():
        return None, [*kinds, "scan without a bag"]
    return picture, kinds
