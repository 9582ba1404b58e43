"""Filling the bank: a new entry for a source and size where there is none yet."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from segloc_synth.bank.bank import Backgrounds, Form, Objects, stem
from segloc_synth.bank.cutting import Segment
from segloc_synth.bank.distractors import cut_distractors
from segloc_synth.bank.labelled import LabelledSource
from segloc_synth.bank.scenes import fit_scan, slot_type
from segloc_synth.bank.segments import cut_segments, learn_palettes
from segloc_synth.colour import learning, palette
from segloc_synth.console import progress
from segloc_synth.engines import run_local
from segloc_synth.files import cache_dir, new_folder, write_json
from segloc_synth.sources.backgrounds import BenignSource
from segloc_synth.sources.listing import spread
from segloc_synth.sources.problems import Problem, faults

VERSION = 10  # raised whenever what an entry holds changes
LOOK_ALIKE_SCANS = 400  # scans that benign look-alikes are cut from


def prepare_objects(sources: Sequence[LabelledSource], size: int, workers: int) -> tuple[tuple[Path, ...], Objects]:
    """Folders and content of the bank entries for labelled sources at canvas `size`, made if need be.

    click.ClickException when no segment is usable.
    """
    folders = []
    for source in sources:
        folder = _entry("objects", f"{source.kind} {source.fingerprint}", size)
        if not folder.exists():
            with new_folder(folder) as tmp:
                _write_objects(tmp, source, size, workers)
        folders.append(folder)
    objects = Objects(folders)
    if not len(objects):
        met = zip(sources, objects.found, strict=True)
        lost = [(source, problem) for source, found in met for problem in faults([*source.problems, *found])]
        if not lost:
            paths = ", ".join(str(source.path) for source in sources)
            raise click.ClickException(f"{paths}: no usable segment; its labels show no object in any scan")
        source, first = lost[0]
        raise click.ClickException(f"{source.path}: no usable segment; {first.kind}: {first.where()}")
    return tuple(folders), objects


def prepare_backgrounds(source: BenignSource, size: int, form: Form, workers: int) -> tuple[Path, Backgrounds]:
    """Folder and content of the bank entry for `source` at canvas `size`: its palettes learnt, no scan prepared yet."""
    folder = _entry("backgrounds", f"{source.fingerprint} {form}", size)
    if not folder.exists():
        with new_folder(folder) as tmp:
            _write_backgrounds(tmp, source, size, form, workers)
    return folder, Backgrounds(folder, source.path)


def prepare_distractors(source: BenignSource, size: int, workers: int) -> tuple[Path, Objects]:
    """Folder and content of the bank entry for benign look-alikes from `source`, whose backgrounds' entry is there."""
    folder = _entry("distractors", source.fingerprint, size)
    if not folder.exists():
        palettes = next(
            entry / "palettes.npz"
            for form in ("raw", "jpeg")
            if (entry := _entry("backgrounds", f"{source.fingerprint} {form}", size)).exists()
        )
        with new_folder(folder) as tmp:
            _write_distractors(tmp, source, size, palettes, workers)
    return folder, Objects([folder])


def raw_size(count: int, size: int) -> int:
    """Bytes of a bank of `count` backgrounds kept raw."""
    return count * slot_type(size).itemsize


def _entry(kind: str, fingerprint: str, size: int) -> Path:
    identity = json.dumps([VERSION, kind, fingerprint, size, cv2.__version__])
    return cache_dir() / "bank" / f"{kind}-{size}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _write_objects(folder: Path, source: LabelledSource, size: int, workers: int) -> None:
    palettes = folder / "palettes.npz"
    palette.save(palettes, learn_palettes(source, size))
    work = partial(
        cut_segments, size=size, bottom_rows=source.bottom_rows, palettes=palettes, min_trust=source.min_trust
    )
    results = progress(run_local(work, source.scans, workers), len(source.scans), "cutting segments")
    _write_segments(folder, results, source.classes)


def _write_segments(
    folder: Path, groups: Iterable[tuple[list[Segment], list[Problem]]], classes: dict[int, str]
) -> None:
    """Write pixels.bin, rows.npz and index.json of an objects' entry."""
    columns = ("class_id", "carrier", "palette", "zoom", "length", "share", "origin", "trust")
    rows: dict[str, list[Any]] = {name: [] for name in (*columns, "shape", "offset")}
    names: list[str] = []
    problems: list[dict[str, Any]] = []
    with (folder / "pixels.bin").open("wb") as file:
        for segments, found in groups:
            problems += [problem.as_dict() for problem in found]
            for segment in segments:
                names.append(segment.name)
                for column in columns:
                    rows[column].append(getattr(segment, column))
                rows["shape"].append(segment.rgba.shape[:2])
                rows["offset"].append(file.tell())
                file.write(segment.rgba.tobytes() + segment.layers.tobytes())
    arrays: dict[str, Any] = {name: np.asarray(column) for name, column in rows.items()}
    with (folder / "rows.npz").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    named = {str(class_id): name for class_id, name in classes.items()}
    write_json(folder / "index.json", {"names": names, "classes": named, "problems": problems}, indent=None)


def _spread_files(source: BenignSource, most: int) -> list[tuple[str, Path]]:
    """(name, path) of at most `most` scans spread evenly over a source."""
    return [(source.relative[place], source.open_path(place)) for place in spread(len(source.relative), most)]


def _write_distractors(folder: Path, source: BenignSource, size: int, palettes: Path, workers: int) -> None:
    shutil.copyfile(palettes, folder / "palettes.npz")
    files = _spread_files(source, LOOK_ALIKE_SCANS)
    results = run_local(partial(cut_distractors, size=size, palettes=palettes), files, workers)
    found = progress(results, len(files), "cutting look-alikes")
    _write_segments(folder, ((segments, []) for segments in found), {0: "look-alike"})


def _write_backgrounds(folder: Path, source: BenignSource, size: int, form: Form, workers: int) -> None:
    count = len(source.relative)
    files = [path for _, path in _spread_files(source, learning.SCANS)]
    results = run_local(partial(fit_scan, size=size), files, workers)
    scans = [scan for scan, _ in progress(results, len(files), "learning colours") if scan is not None]
    palette.save(folder / "palettes.npz", learning.fit([scan.picture for scan in scans], [scan.bag for scan in scans]))
    encoded = [name.encode(errors="surrogateescape") for name in source.relative]
    ends = BytesIO()  # of a full disk np.save tells neither the error nor the file
    np.save(ends, np.cumsum([0, *map(len, encoded)]))
    (folder / "names.npy").write_bytes(ends.getvalue())
    (folder / "names.bin").write_bytes(b"".join(encoded))
    (folder / "states.bin").write_bytes(bytes(count))
    (folder / "slots.bin").touch()
    unique = len({stem(name) for name in source.relative}) == count
    write_json(folder / "index.json", {"size": size, "form": form, "unique": unique})
