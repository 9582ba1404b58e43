"""The shard format: tars of image pairs and a sidecar beside each. Owner of the format and of reading it.

A shard `segloc-%08d.tar` holds samples of three members, `KEY.json`, `KEY.key.jpg`, `KEY.query.jpg`, KEY the
12-digit index. Its sidecar `segloc-%08d.json` is written last and so marks the shard as done. `manifest.json`
is assembled from the sidecars; its top level is also a wids-v1 index.

A shard may come from a stranger. Nothing is ever extracted: samples are read by the sidecar's offsets, which are
checked to lie in order inside the file, and a record is parsed only up to MAX_RECORD bytes.
"""

import hashlib
import json
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from numpy.typing import NDArray
from upath import UPath

from segloc_synth.files import in_threads, is_local
from segloc_synth.shards.manifest import FORMAT_VERSION, mend, page_count, read_manifest, read_page, sidecar_path
from segloc_synth.shards.soundness import is_record, unsound

DESCRIPTORS = 128  # local shards that a reader holds open
MAX_RECORD = 1 << 20  # bytes of a sample's JSON; real ones have about 2,000
MAX_SIDECAR = 1 << 20, 1 << 10  # bytes of a sidecar at most, and for each sample besides; real ones have about 80
MEMBERS = ("json", "key.jpg", "query.jpg")


def config_hash(config: dict[str, Any]) -> str:
    """sha256 of a config's canonical JSON, keys sorted: the identity of a build."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """One encoded pair: `meta` as documented in the data card, and two JPEG files."""

    meta: dict[str, Any]
    key: bytes
    query: bytes


@dataclass(frozen=True)
class Shard:
    """An opened shard.

    Attributes:
        path: of the tar.
        offsets: int64 [count, 3, 2], place and size of each member.
        classes: int64 [count], class ids.
        scans: int32 [count, 2], positions in `scan_names` of the scans that key and query segment come from.
        scan_names: names of scans.
        descriptor: of a local file, opened on first use.
    """

    path: Path
    offsets: NDArray[np.int64]
    classes: NDArray[np.int64]
    scans: NDArray[np.int32]
    scan_names: list[str] = field(repr=False)
    descriptor: int | None = None

    def read(self, row: int) -> list[bytes]:
        """The members of a sample, by one read or range request; shorter than they should be where the file ends."""
        members = self.offsets[row].tolist()
        start, end = members[0][0], sum(members[-1])
        if self.descriptor is not None:
            data = os.pread(self.descriptor, end - start, start)
        else:
            data = cast(UPath, self.path).fs.cat_file(cast(UPath, self.path).path, start=start, end=end)
            if len(data) > end - start:  # a plain web server knows no ranges: it gives the whole file
                data = data[start:end]
        return [data[offset - start : offset - start + size] for offset, size in members]


Number = tuple[int, int]  # of a shard: its page, and its place there


class ShardReader:
    """Random access to the samples of a finished build, by stored offset; the folder may be a UPath.

    Counts, sizes and config come from the manifest and are checked when a shard is opened (a tar cut at a member
    boundary reads short in silence). All shards that the manifest lists itself are opened at once, unless
    `check` is False; where it has pages, a shard is opened when a sample of it is asked for, or all by `labels`. File
    descriptors open on first use, so a reader may be pickled to workers.

    Args:
        folder: of the build.
        check: open all listed shards now.
        local: where the build is remote, gives a descriptor of a local copy of a shard, by its path and its entry in
            the manifest; without it samples are read by range requests.

    Attributes:
        folder: the build.
        manifest: content of manifest.json.
        classes: list of {"id", "name"} in the trainer's order.
    """

    def __init__(
        self, folder: Path, check: bool = True, local: Callable[[Path, dict[str, Any]], int] | None = None
    ) -> None:
        self.folder, self._local = folder, local
        self.manifest = read_manifest(folder)
        for fault in unsound(self.manifest):
            raise click.ClickException(f"{folder / 'manifest.json'}: {fault}; {self.remedy}")
        self.classes: list[dict[str, Any]] = self.manifest["classes"]
        self._pages: dict[int, tuple[list[dict[str, Any]], list[int]]] = {}
        self._shards: dict[Number, Shard] = {}
        self._opened: deque[Number] = deque()  # shards with a descriptor, in the order of opening
        if "pages" in self.manifest:
            self._starts = _starts(page["samples"] for page in self.manifest["pages"])
        else:
            self._starts = [0, self.manifest["totals"]["samples"]]
            self._page(0)
            if check:
                _ = self.labels

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def remedy(self) -> str:
        """What to run where something in the build is damaged."""
        return mend(self.folder)

    def numbers(self) -> list[Number]:
        """All shards, in order."""
        return [(page, n) for page in range(page_count(self.manifest)) for n in range(len(self._page(page)[0]))]

    def entry(self, number: Number) -> dict[str, Any]:
        """A shard's entry {"url", "nsamples", "filesize", "sha256"} in the manifest."""
        return self._page(number[0])[0][number[1]]

    def first(self, number: Number) -> int:
        """Place of a shard's first sample."""
        return self._starts[number[0]] + self._page(number[0])[1][number[1]]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """int64 [N], position of each sample's class in `classes`."""
        return np.concatenate([np.empty(0, np.int64), *(self.positions(shard) for shard in self._all())])

    def positions(self, shard: Shard) -> NDArray[np.int64]:
        """int64 [count], position in `classes` of the class of each sample of a shard."""
        # By search, not by a table of ids: a stranger's id may be huge or negative.
        known = np.array([entry["id"] for entry in self.classes], np.int64)
        ascending = np.argsort(known)
        found = ascending[np.searchsorted(known[ascending], shard.classes).clip(max=len(known) - 1)]
        if (known[found] != shard.classes).any():
            side = sidecar_path(shard.path)
            raise click.ClickException(f"{side}: names a class that the manifest lacks; {self.remedy}")
        return found

    @cached_property
    def scan_names(self) -> list[str]:
        """Names of all scans that segments come from, as first met."""
        return list(dict.fromkeys(name for shard in self._all() for name in shard.scan_names))

    @cached_property
    def scans(self) -> NDArray[np.int32]:
        """int32 [N, 2], positions in `scan_names` of the scans that key and query segment of each sample come from."""
        position = {name: place for place, name in enumerate(self.scan_names)}
        parts = [np.array([position[n] for n in one.scan_names], np.int32)[one.scans] for one in self._all()]
        return np.concatenate([np.empty((0, 2), np.int32), *parts])

    def _all(self) -> list[Shard]:
        """All shards, opened."""
        return list(in_threads(self.opened, self.numbers(), is_local(self.folder)))

    def __getitem__(self, place: int) -> Sample:
        page, n, row = self._find(place)
        shard = self._ready((page, n))
        parts = shard.read(row)
        if len(parts[-1]) != shard.offsets[row, -1, 1]:
            raise click.ClickException(f"{shard.path}: ends inside sample {place:012d}; {self.remedy}")
        meta = parse_record(parts[0])
        if meta is None:
            raise click.ClickException(f"{shard.path}: {place:012d}.json is damaged; {self.remedy}")
        return Sample(meta, parts[1], parts[2])

    def complete(self, place: int) -> Sample:
        """As by [place], its record checked to hold what drawing and exporting take, which training does without."""
        sample = self[place]
        if sample.meta.get("index") != place or not is_record(sample.meta):
            path = self.folder / self.entry(self._find(place)[:2])["url"]
            raise click.ClickException(f"{path}: {place:012d}.json is damaged; {self.remedy}")
        return sample

    def _ready(self, number: Number) -> Shard:
        """The shard, opened; with a descriptor where it is local or has a local copy."""
        shard = self.opened(number)
        if shard.descriptor is None and (self._local or is_local(self.folder)):
            copied = self._local(shard.path, self.entry(number)) if self._local else os.open(shard.path, os.O_RDONLY)
            shard = self._shards[number] = replace(shard, descriptor=copied)
            self._opened.append(number)
            for other in [one for one in self._opened if self._is_gone(one)]:
                self._close(other)  # deleted from the cache meanwhile, but its bytes stay while it is open
            if len(self._opened) > DESCRIPTORS:  # a process may hold about a thousand files open
                self._close(self._opened[0])
        return shard

    def _is_gone(self, number: Number) -> bool:
        shard = self._shards[number]
        return self._local is not None and shard.descriptor is not None and not os.fstat(shard.descriptor).st_nlink

    def _close(self, number: Number) -> None:
        self._opened.remove(number)
        shard = self._shards[number]
        if shard.descriptor is not None:
            os.close(shard.descriptor)
        self._shards[number] = replace(shard, descriptor=None)

    def _find(self, place: int) -> tuple[int, int, int]:
        """(page, shard in it, row in that) of a sample."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        page = bisect_right(self._starts, place) - 1
        starts = self._page(page)[1]
        number = bisect_right(starts, place - self._starts[page]) - 1
        return page, number, place - self._starts[page] - starts[number]

    def _page(self, page: int) -> tuple[list[dict[str, Any]], list[int]]:
        if page not in self._pages:
            entries = read_page(self.folder, self.manifest, page)
            starts = _starts(entry["nsamples"] for entry in entries)
            if starts[-1] != self._starts[page + 1] - self._starts[page]:
                where = self.folder / "manifest.json"
                raise click.ClickException(f"{where}: totals and list disagree; {self.remedy}")
            self._pages[page] = entries, starts
        return self._pages[page]

    def opened(self, number: Number) -> Shard:
        """The shard, opened once and kept."""
        if number not in self._shards:
            self._shards[number] = self._open(number)
        return self._shards[number]

    def _open(self, number: Number) -> Shard:
        """The shard, checked against the manifest; click.ClickException says what does not fit."""
        entry = self.entry(number)
        path = self.folder / entry["url"]
        side_path, told_by = sidecar_path(path), f"the manifest says {entry['filesize']}"
        try:
            size = path.stat().st_size
            if size != entry["filesize"]:
                raise click.ClickException(f"{path}: has {size} bytes, {told_by}; {self.remedy}")
            limit = MAX_SIDECAR[0] + MAX_SIDECAR[1] * entry["nsamples"]
            with side_path.open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError as error:
            gone = side_path if str(error.filename or error).endswith(side_path.name) else path
            raise click.ClickException(f"{gone}: is missing; {self.remedy}") from None
        except OSError as error:
            raise click.ClickException(f"{path}: cannot be read ({error.strerror or error})") from None
        try:
            if len(data) > limit:
                raise ValueError("too long")
            side = json.loads(data)
            told = (FORMAT_VERSION, entry["nsamples"], entry["sha256"], self.manifest["config_hash"])
            if (side["format_version"], side["count"], side["sha256"], side["config_hash"]) != told:
                raise click.ClickException(f"{side_path}: does not match the manifest; {self.remedy}")
            return _checked(path, side, entry)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise click.ClickException(f"{side_path}: is damaged; {self.remedy}") from None

    def __getstate__(self) -> dict[str, Any]:
        shards = {number: replace(shard, descriptor=None) for number, shard in self._shards.items()}
        return {**self.__dict__, "_shards": shards, "_opened": deque()}


def parse_record(data: bytes) -> dict[str, Any] | None:
    """A sample's JSON; None where it is none, too long or too deep."""
    try:
        meta = json.loads(data) if len(data) <= MAX_RECORD else None
    except (ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None


def _checked(path: Path, side: dict[str, Any], entry: dict[str, Any]) -> Shard:
    """The shard that a sidecar describes; ValueError, TypeError, KeyError or OverflowError where it talks nonsense."""
    count, names = entry["nsamples"], side["scans"]["names"]
    offsets = np.array(side["offsets"], np.int64).reshape(count, len(MEMBERS), 2)
    classes = np.array(side["classes"], np.int64).reshape(count)
    scans = np.array(side["scans"]["pairs"], np.int32).reshape(count, 2)
    first, sizes = offsets.reshape(-1, 2).T
    # No sum before all are known to be small: it could overflow.
    if not ((offsets >= 0).all() and (offsets <= entry["filesize"]).all()):
        raise ValueError("an offset is outside the file")
    if (first + sizes > np.append(first[1:], entry["filesize"])).any():
        raise ValueError("offsets overlap")
    if not (all(isinstance(name, str) for name in names) and (scans >= 0).all() and (scans < len(names)).all()):
        raise ValueError("no names of scans")
    return Shard(path, offsets, classes, scans, names)


def _starts(counts: Iterable[int]) -> list[int]:
    """First place of each of the groups with these `counts`, and the end."""
    return [0, *accumulate(counts)]
