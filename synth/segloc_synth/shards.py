"""The shard format: tars of image pairs and a sidecar beside each. Owner of writing and reading samples.

A shard `segloc-%08d.tar` holds samples of three members, `KEY.json`, `KEY.key.jpg`, `KEY.query.jpg`, KEY the
12-digit index. Its sidecar `segloc-%08d.json` is written last and so marks the shard as done. `manifest.json`
is assembled from the sidecars; its top level is also a wids-v1 index.
"""

import hashlib
import json
import os
import tarfile
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from numpy.typing import NDArray
from upath import UPath

from segloc_synth.files import Hashed, atomic_write, in_threads, is_local, json_bytes, read_json, write_json
from segloc_synth.manifest import Problems, Summary, mend, page_count, read_manifest, read_page, sidecar_path

DESCRIPTORS = 128  # local shards that a reader holds open
MEMBERS = ("json", "key.jpg", "query.jpg")
BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # of mode 644, mtime 0


def config_hash(config: dict[str, Any]) -> str:
    """sha256 of a config's canonical JSON, keys sorted: the identity of a build."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Sample:
    """One encoded pair: `meta` as documented in the data card, and two JPEG files."""

    meta: dict[str, Any]
    key: bytes
    query: bytes


def write_shard(path: Path, samples: Iterable[Sample], identity: str, problems: Problems) -> Summary:
    """Write a shard and then its sidecar, each atomically; returns the sidecar's summary.

    `identity` is the build's config hash; `problems` is read after the samples are drawn.
    """
    offsets: list[list[int]] = []
    classes: list[int] = []
    with atomic_write(path) as file:
        hashed = Hashed(file)
        for sample in samples:
            row: list[int] = []
            parts: list[bytes] = []
            offset = hashed.size
            payloads = (json_bytes(sample.meta, indent=None), sample.key, sample.query)
            for name, data in zip(MEMBERS, payloads, strict=True):
                row += [offset + tarfile.BLOCKSIZE, len(data)]
                parts += [_header(f"{sample.meta['index']:012d}.{name}", len(data)), data, _padding(len(data))]
                offset += sum(map(len, parts[-3:]))
            hashed.write(b"".join(parts))
            offsets.append(row)
            classes.append(sample.meta["class_id"])
        hashed.write(bytes(2 * tarfile.BLOCKSIZE))
        hashed.write(_padding(hashed.size, tarfile.RECORDSIZE))
    sidecar = {
        "shard": path.name,
        "config_hash": identity,
        "count": len(offsets),
        "bytes": hashed.size,
        "sha256": hashed.digest.hexdigest(),
        "classes": classes,
        "members": list(MEMBERS),
        "offsets": offsets,
        "problems": problems,
    }
    write_json(sidecar_path(path), sidecar, indent=None)
    return Summary.of(sidecar)


def _header(name: str, size: int) -> bytes:
    """A file's USTAR header as tarfile would write it, which takes ten times as long."""
    header = bytearray(BLANK)
    header[: len(name)] = name.encode()
    header[124:135] = b"%011o" % size
    header[148:156] = b" " * 8  # counts so in its own sum
    header[148:155] = b"%06o\0" % sum(header)
    return bytes(header)


def _padding(size: int, block: int = tarfile.BLOCKSIZE) -> bytes:
    return bytes(-size % block)


@dataclass(frozen=True)
class _Shard:
    """An opened shard. offsets: int64 [count, 3, 2], place and size of each member; classes: int64 [count], ids."""

    path: Path
    offsets: NDArray[np.int64]
    classes: NDArray[np.int64]
    descriptor: int | None = None  # of a local file, opened on first use

    def read(self, row: int) -> list[bytes]:
        """The members of a sample, by one read or range request; shorter than they should be where the file ends."""
        members = self.offsets[row].tolist()
        start, end = members[0][0], sum(members[-1])
        if self.descriptor is not None:
            data = os.pread(self.descriptor, end - start, start)
        else:
            data = cast(UPath, self.path).fs.cat_file(cast(UPath, self.path).path, start=start, end=end)
        return [data[offset - start : offset - start + size] for offset, size in members]


class ShardReader:
    """Random access to the samples of a finished build, by stored offset; the folder may be a UPath.

    Counts, sizes and config come from the manifest and are checked when a shard is opened (a tar cut at a member
    boundary reads short in silence). All shards that the manifest lists itself are opened at once; where it has
    pages, a shard is opened when a sample of it is asked for, or all by `labels`. File descriptors open on first use,
    so a reader may be pickled to workers.

    Attributes:
        folder: the build.
        manifest: content of manifest.json.
        classes: list of {"id", "name"} in the trainer's order.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.classes: list[dict[str, Any]] = self.manifest["classes"]
        self._pages: dict[int, tuple[list[dict[str, Any]], list[int]]] = {}
        self._shards: dict[tuple[int, int], _Shard] = {}
        self._opened: deque[tuple[int, int]] = deque()  # shards with a descriptor, in the order of opening
        if "pages" in self.manifest:
            self._starts = _starts(page["samples"] for page in self.manifest["pages"])
        else:
            self._starts = [0, self.manifest["totals"]["samples"]]
            if len(self.labels) != len(self):
                raise click.ClickException(f"{folder / 'manifest.json'}: totals and list disagree; {mend(folder)}")

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """int64 [N], position of each sample's class in `classes`."""
        numbers = [(page, n) for page in range(page_count(self.manifest)) for n in range(len(self._page(page)[0]))]
        opened = in_threads(lambda number: self._open(*number), numbers, is_local(self.folder))
        self._shards |= dict(zip(numbers, opened, strict=True))
        ids = np.concatenate([np.empty(0, np.int64), *(self._shards[number].classes for number in numbers)])
        known = np.array([entry["id"] for entry in self.classes], np.int64)
        position = np.full(max(ids.max(initial=0), known.max(initial=0)) + 1, -1, np.int64)
        position[known] = np.arange(len(known))
        if (position[ids] < 0).any():
            raise click.ClickException(f"{self.folder}: a sample's class is not in the manifest; {mend(self.folder)}")
        return position[ids]

    def locate(self, place: int) -> tuple[Path, int]:
        """(shard, row in it) of the sample at `place`, 0 <= place < len."""
        page, number, row = self._find(place)
        return self.folder / self._page(page)[0][number]["url"], row

    def __getitem__(self, place: int) -> Sample:
        page, number, row = self._find(place)
        shard = self._shards.get((page, number))
        if shard is None or (shard.descriptor is None and is_local(self.folder)):
            shard = shard or self._open(page, number)
            if is_local(self.folder):
                shard = replace(shard, descriptor=os.open(shard.path, os.O_RDONLY))
                self._opened.append((page, number))
                if len(self._opened) > DESCRIPTORS:  # a process may hold about a thousand files open
                    self._close(self._opened.popleft())
            self._shards[page, number] = shard
        parts = shard.read(row)
        if len(parts[-1]) != shard.offsets[row, -1, 1]:
            raise click.ClickException(f"{shard.path}: ends inside sample {place}; {mend(self.folder)}")
        try:
            meta = json.loads(parts[0])
        except ValueError:
            raise click.ClickException(f"{shard.path}: sample {place} is damaged; {mend(self.folder)}") from None
        return Sample(meta, parts[1], parts[2])

    def _close(self, key: tuple[int, int]) -> None:
        shard = self._shards[key]
        if shard.descriptor is not None:
            os.close(shard.descriptor)
        self._shards[key] = replace(shard, descriptor=None)

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
            self._pages[page] = entries, _starts(entry["nsamples"] for entry in entries)
        return self._pages[page]

    def _open(self, page: int, number: int) -> _Shard:
        """The shard, checked against the manifest; click.ClickException says what does not fit."""
        entry = self._page(page)[0][number]
        path = self.folder / entry["url"]
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            size = None
        if size != entry["filesize"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise click.ClickException(f"{path}: {found}, the manifest says {entry['filesize']}; {mend(self.folder)}")
        side = read_json(sidecar_path(path))
        told = (entry["nsamples"], entry["sha256"], self.manifest["config_hash"])
        if (side["count"], side["sha256"], side["config_hash"]) != told:
            raise click.ClickException(f"{sidecar_path(path)}: does not match the manifest; {mend(self.folder)}")
        offsets = np.asarray(side["offsets"], np.int64).reshape(-1, len(MEMBERS), 2)
        return _Shard(path, offsets, np.asarray(side["classes"], np.int64))

    def __getstate__(self) -> dict[str, Any]:
        shards = {number: replace(shard, descriptor=None) for number, shard in self._shards.items()}
        return {**self.__dict__, "_shards": shards}


def _starts(counts: Iterable[int]) -> list[int]:
    """First place of each of the groups with these `counts`, and the end."""
    return [0, *accumulate(counts)]
