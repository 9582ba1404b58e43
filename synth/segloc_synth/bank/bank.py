"""The bank: segments and backgrounds made ready once per source and size, and reused by every later build.

An entry is a folder in the user's cache named by a hash of all that its content depends on. Segments are prepared all
at once; backgrounds one by one when a build first uses them, each in a slot of its own in one sparse file, so that any
number of processes may fill it. Files are read by offset: memory grows neither with the bank nor with the build.
"""

import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import numpy.typing as npt

from segloc_synth.bank.cutting import Segment
from segloc_synth.bank.scenes import Scene, fit_background, look_alike, slot_type
from segloc_synth.colour import palette
from segloc_synth.colour.palette import Palette
from segloc_synth.files import read_json
from segloc_synth.sources.backgrounds import neighbours
from segloc_synth.sources.images import decode_jpeg, encode_jpeg
from segloc_synth.sources.problems import NEAR, USABLE, Problem

UNKNOWN, READY, UNUSABLE = 0, 1, 2  # states of a slot
QUALITY = 95  # of backgrounds kept as JPEG
Form = Literal["raw", "jpeg"]


class Objects:
    """The prepared segments of one labelled source, or of several; opened from bank folders.

    `found` are the problems met while cutting, a list for each folder.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.names: list[str] = []
        self.found: list[list[Problem]] = []
        self.classes: dict[int, str] = {}
        self.palettes: list[Palette] = []
        columns: dict[str, list[npt.NDArray[Any]]] = {}
        for part, folder in enumerate(folders):
            index = read_json(folder / "index.json")
            self.names += index["names"]
            self.found.append([Problem(**problem) for problem in index["problems"]])
            self.classes |= {int(class_id): name for class_id, name in index["classes"].items()}
            with np.load(folder / "rows.npz", allow_pickle=False) as rows:
                for name in rows.files:
                    columns.setdefault(name, []).append(rows[name])
            columns["palette"][-1] = columns["palette"][-1] + len(self.palettes)
            columns.setdefault("part", []).append(np.full(len(index["names"]), part))
            self.palettes += palette.load(folder / "palettes.npz")
        self.rows = {
            name: np.concatenate([one for one in parts if len(one)] or parts[:1]) for name, parts in columns.items()
        }
        self._files = [os.open(folder / "pixels.bin", os.O_RDONLY) for folder in folders]

    def __len__(self) -> int:
        return len(self.names)

    def __del__(self) -> None:
        for file in getattr(self, "_files", ()):
            os.close(file)

    @property
    def problems(self) -> list[Problem]:
        """Those of all folders."""
        return list(chain.from_iterable(self.found))

    def used_classes(self) -> list[int]:
        """Ids of the classes that have a segment, ascending."""
        return sorted(set(self.rows["class_id"].tolist()))

    def __getitem__(self, place: int) -> Segment:
        row = {name: column[place] for name, column in self.rows.items()}
        height, width = row["shape"].tolist()
        area = height * width
        data = os.pread(self._files[row["part"]], 10 * area, int(row["offset"]))
        return Segment(
            name=self.names[place],
            class_id=int(row["class_id"]),
            rgba=np.frombuffer(data, np.uint8, 4 * area).reshape(height, width, 4),
            layers=np.frombuffer(data, np.uint16, 3 * area, 4 * area).reshape(height, width, 3),
            carrier=tuple(row["carrier"].tolist()),
            palette=int(row["palette"]),
            zoom=float(row["zoom"]),
            length=float(row["length"]),
            share=float(row["share"]),
            origin=tuple(row["origin"].tolist()),
            trust=float(row["trust"]),
        )


class Backgrounds:
    """The benign scans of a source, each prepared when it is first asked for; opened from a bank folder.

    root: folder (or URL) of the source's files.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.root = root
        index = read_json(folder / "index.json")
        self.size: int = index["size"]
        self.form: Form = index["form"]
        self._unique: bool = index["unique"]
        self.palettes = palette.load(folder / "palettes.npz")
        self._ends = np.asarray(np.load(folder / "names.npy", mmap_mode="r"))  # a plain array: memmap indexes slowly
        self._slot = slot_type(self.size)
        self._header = self._slot.itemsize - 3 * self.size**2  # bytes before the pixels
        self._files = [os.open(folder / name, os.O_RDWR) for name in ("names.bin", "states.bin", "slots.bin")]
        self._names, self._states, self._slots = self._files
        self._folder = folder

    def __del__(self) -> None:
        for file in getattr(self, "_files", ()):
            os.close(file)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def file(self, place: int) -> str:
        """Path of a scan in its source, with extension."""
        start, end = int(self._ends[place]), int(self._ends[place + 1])
        return os.pread(self._names, end - start, start).decode(errors="surrogateescape")

    def name(self, place: int) -> str:
        """Path of a scan in its source, without extension unless names would be alike without."""
        file = self.file(place)
        return stem(file) if self._unique else file

    def get(self, place: int) -> tuple[Scene | None, list[str]]:
        """A scan, None when it cannot be used, and the kinds of problems it has."""
        state = os.pread(self._states, 1, place)[0]
        if state == UNKNOWN:
            return self._prepare(place)
        slot = self._read(place, self._slot.itemsize if (self.form, state) == ("raw", READY) else self._header)
        if not (slot["bag_size"] > 0 if state == READY else slot["notes"]):
            return self._prepare(place)  # the power failed when its state was on the disk and the slot was not
        if state == UNUSABLE:
            return None, _notes(slot)
        pixels = slot["pixels"]
        if self.form == "jpeg":
            start = place * self._slot.itemsize + self._header
            jpeg = os.pread(self._slots, int(slot["jpeg"]), start)
            pixels = decode_jpeg(jpeg)
        return Scene.of(slot, pixels), _notes(slot)

    def _read(self, place: int, length: int) -> np.void:
        data = os.pread(self._slots, length, place * self._slot.itemsize)
        return np.frombuffer(data.ljust(self._slot.itemsize, b"\0"), self._slot)[0]

    def _prepare(self, place: int) -> tuple[Scene | None, list[str]]:
        slot = fit_background(self.root / self.file(place), self.size, self.palettes)
        usable = bool(slot["bag_size"] > 0)
        data = slot.tobytes()
        pixels: Any = slot["pixels"]
        if not usable:
            data = data[: self._header]
        elif self.form == "jpeg":
            jpeg = encode_jpeg(pixels, QUALITY)
            slot["jpeg"] = len(jpeg)
            data = slot.tobytes()[: self._header] + jpeg
            pixels = decode_jpeg(jpeg)
        try:
            _write(self._slots, data, place * self._slot.itemsize)
            _write(self._states, bytes([READY if usable else UNUSABLE]), place)
        except OSError as error:  # it is the bank's disk that is full, not the output's
            error.filename = str(self._folder / "slots.bin")
            raise
        return (Scene.of(slot, pixels) if usable else None), _notes(slot)

    def choose(
        self, candidates: Sequence[int], other: tuple[int, Scene] | None = None
    ) -> tuple[int, Scene, list[tuple[str, str]]]:
        """The first of `candidates` that can be used and shows another bag than the scan `other`, at its place.

        Returns its place, the scan, and (file, kind) of every problem met on the way. When none will do, the scans
        after the last candidate are tried, round the whole source; then neighbours of `other` that do not look alike.
        click.ClickException when nothing is left.
        """
        last = candidates[-1] + 1
        taken, beside = other or (None, None)
        name = None if taken is None else self.name(taken)
        met: list[tuple[str, str]] = []
        near: list[int] = []
        for place in chain(candidates, (index % len(self) for index in range(last, last + len(self)))):
            if name is not None and neighbours(name, self.name(place)):
                near.append(place)
            elif (scene := self._another(place, beside, met)) is not None:
                return place, scene, met
        for place in near:
            if place != taken and (scene := self._another(place, beside, met)) is not None:
                return place, scene, [*met, (self.file(place), NEAR)]
        bad = [f"; {kind}: {file}" for file, kind in met if kind not in USABLE]
        first = bad[0] if bad else "; all that there are look alike"
        raise click.ClickException(f"{self.root}: a pair needs two usable scans of different bags{first}")

    def _another(self, place: int, beside: Scene | None, met: list[tuple[str, str]]) -> Scene | None:
        """A scan, unless it is unusable or looks like `beside`; its problems are added to `met`."""
        scene, kinds = self.get(place)
        met += [(self.file(place), kind) for kind in kinds]
        return None if scene is None or (beside is not None and look_alike(beside, scene)) else scene


def stem(file: str) -> str:
    """A path in a source without its extension."""
    return os.path.splitext(file)[0]  # noqa: PTH122 - pathlib takes ten times as long


def _notes(slot: Any) -> list[str]:
    text = slot["notes"].item().decode(errors="replace")
    return text.split("; ") if text else []


def _write(file: int, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`; OSError, such as no space left, is the caller's."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done
