"""What --shards names, as one set: folders, brace patterns and URLs of shards, several of them with weights."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from braceexpand import braceexpand
from numpy.typing import NDArray

from segloc_synth.console import fault, faults_of, log
from segloc_synth.files import as_path, cache_dir, in_threads, is_local
from segloc_synth.shards.format import Sample, Shard, ShardReader
from segloc_train.data.cache import LIMIT, ShardCache

OnBadShard = Literal["skip", "stop"]


@dataclass(frozen=True)
class Part:
    """A shard of the run's data.

    Attributes:
        reader: of the build that it belongs to.
        number: of the shard in that build.
        path: of its tar.
        set: which of the sets.
        first, count: the places of its pairs in the run's data, first..first + count - 1.
        offset: place of its first pair in the build, minus `first`.
    """

    reader: ShardReader
    number: tuple[int, int]
    path: Path
    set: int
    first: int
    count: int
    offset: int


class Sources:
    """The pairs of one or more builds, numbered through: a pair's place is its number in the run's data.

    All sidecars are read when it is opened; a pair takes about 80 bytes, mostly offsets. Sets with the
    same scan names are taken to show the same scans.

    Attributes:
        classes: list of {"id", "name"} of all sets, merged by name (case ignored), in the order met, ids of the first.
        labels: int64 [N], position of each pair's class in `classes`.
        scans: int32 [N, 2], positions in `scan_names` of the scans of key and query segment.
        scan_names: names of the scans.
        weights: how much is drawn from each set; empty where every pair is seen once in an epoch.
        starts: place of each set's first pair.
        parts: the shards, in order.
        image_size: side of the square pictures in pixels.
        identity: sha256 over what decides the data: configs of the builds, shards chosen, weights.
        on_bad_shard: "skip" or "stop", also for what is found while reading.
        size: bytes of all shards.
    """

    def __init__(
        self,
        sets: Sequence[tuple[ShardReader, Sequence[str] | None]],
        weights: Sequence[float] = (),
        on_bad_shard: OnBadShard = "stop",
    ) -> None:
        self.weights, self.on_bad_shard = tuple(weights), on_bad_shard
        self.classes: list[dict[str, Any]] = []
        self.parts: list[Part] = []
        self.starts: list[int] = []
        self.size = 0
        known: dict[str, int] = {}  # position of a class
        scan_numbers: dict[str, int] = {}
        labels: list[NDArray[np.int64]] = []
        scans: list[NDArray[np.int32]] = []
        told: list[Any] = []
        seen: set[Path] = set()
        first = 0
        for reader, names in sets:
            self.starts.append(first)
            for entry in reader.classes:
                if known.setdefault(entry["name"].casefold(), len(known)) == len(self.classes):
                    self.classes.append(entry)
            ours = np.array([known[entry["name"].casefold()] for entry in reader.classes], np.int64)
            opened = list(_open(reader, names, on_bad_shard))
            for number, shard, positions in opened:
                if shard.path in seen:
                    raise click.ClickException(f"{shard.path}: --shards names it twice; name every shard once")
                seen.add(shard.path)
                count, entry = len(positions), reader.entry(number)
                part = (reader, number, shard.path, len(self.starts) - 1, first, count, reader.first(number) - first)
                self.parts.append(Part(*part))
                labels.append(ours[positions])
                found = [scan_numbers.setdefault(name, len(scan_numbers)) for name in shard.scan_names]
                scans.append(np.array(found, np.int32)[shard.scans])
                first, self.size = first + count, self.size + entry["filesize"]
            told.append([reader.manifest["config_hash"], [reader.entry(number) for number, _, _ in opened]])
        self.labels: NDArray[np.int64] = np.concatenate(labels)
        self.scans: NDArray[np.int32] = np.concatenate(scans)
        self.scan_names = list(scan_numbers)
        sizes = {image_size(reader) for reader, _ in sets}
        if len(sizes) > 1:
            where = ", ".join(f"{reader.folder} {image_size(reader)}" for reader, _ in sets)
            raise click.ClickException(f"pictures differ in size ({where} pixels); build all sets with one --size")
        self.image_size = sizes.pop()
        self.identity = hashlib.sha256(json.dumps([told, self.weights]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def _firsts(self) -> NDArray[np.int64]:
        return np.array([part.first for part in self.parts], np.int64)

    def part(self, place: int) -> Part:
        """The shard that a pair lies in."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self.parts[int(np.searchsorted(self._firsts, place, "right")) - 1]

    def name(self, place: int) -> str:
        """Shard and key of a pair, for messages."""
        part = self.part(place)
        return f"{part.path}: {place + part.offset:012d}"

    def damaged(self, place: int, what: str) -> click.ClickException:
        """The line that tells of a damaged pair: its name, `what` follows upon it, and the remedy."""
        return click.ClickException(f"{self.name(place)}{what}; {self.part(place).reader.remedy}")

    def read(self, place: int) -> Sample:
        """A pair as stored; click.ClickException names the shard, and the key, of a damaged one."""
        part = self.part(place)
        with _faults_of(part.path):
            return part.reader[place + part.offset]


@contextmanager
def _faults_of(what: object) -> Iterator[None]:
    """As console.faults_of, but a path that the error tells itself is not told twice."""
    with faults_of(what):
        try:
            yield
        except OSError as error:
            if not str(error.filename).startswith(str(what)):
                raise
            raise click.ClickException(fault(error) or str(error)) from None


def _open(
    reader: ShardReader, names: Sequence[str] | None, on_bad_shard: OnBadShard
) -> Sequence[tuple[tuple[int, int], Shard, NDArray[np.int64]]]:
    """(number, shard, positions of its classes) of the shards of a build, or those `names`, that are in order."""
    numbers = reader.numbers()
    if names is not None:
        there = {reader.entry(number)["url"]: number for number in numbers}
        if missing := [name for name in names if name not in there]:
            raise click.ClickException(f"{reader.folder / 'manifest.json'}: lists no shard {missing[0]}")
        numbers = [there[name] for name in dict.fromkeys(names)]

    def opened(number: tuple[int, int]) -> tuple[Shard, NDArray[np.int64]] | click.ClickException:
        try:
            shard = reader.opened(number)
            return shard, reader.positions(shard)
        except click.ClickException as error:
            return error

    found = []
    for number, result in zip(numbers, in_threads(opened, numbers, is_local(reader.folder)), strict=True):
        if not isinstance(result, click.ClickException):
            found.append((number, *result))
        elif on_bad_shard == "stop":
            raise result
        else:
            log.warning("Warning: left out: %s", result.message)
    if not found:
        raise click.ClickException(f"{reader.folder}: none of its shards can be read")
    return found


def image_size(reader: ShardReader) -> int:
    """Side of the square pictures in pixels; click.ClickException where the manifest does not say."""
    config = reader.manifest.get("config")
    size = config.get("size") if isinstance(config, dict) else None
    if type(size) is not int or not 1 <= size <= 1 << 14:
        raise click.ClickException(f"{reader.folder / 'manifest.json'}: config.size is {size!r}, not a size in pixels")
    return size


def open_sources(
    paths: Sequence[str],
    weights: Sequence[float] = (),
    on_bad_shard: OnBadShard = "stop",
    cache_limit: int = LIMIT,
    stream: bool = False,
) -> Sources:
    """Open what --shards names.

    Args:
        paths: each a folder of shards, a brace pattern of shards (`pairs/segloc-{00000000..00000009}.tar`), or the
            same at a URL that fsspec knows (s3://, http://, ...).
        weights: one positive number for each path, or none.
        on_bad_shard: what to do with a shard that is missing, short or contradicts its sidecar or the manifest: `skip`
            leaves it out with a warning.
        cache_limit: bytes that local copies of remote shards may take, in $SEGLOC_CACHE/shards.
        stream: remote shards will be read through segloc_train.data.stream, without copies.

    Raises:
        click.ClickException: one line that names what cannot be read or does not fit together.
    """
    if weights and (len(weights) != len(paths) or not all(0 < weight < float("inf") for weight in weights)):
        raise click.ClickException(f"--weight: {len(paths)} sets need as many positive weights")
    sets = []
    for text in paths:
        folder, names = _named(text)
        with _faults_of(text):
            try:
                where = as_path(folder)
                local = None if stream or is_local(where) else ShardCache(cache_dir() / "shards", cache_limit).open
                sets.append((ShardReader(where, check=False, local=local), names))
            except (ImportError, ValueError) as error:
                raise click.ClickException(f"{text}: {error}") from None
            except (KeyError, TypeError, OverflowError):
                raise click.ClickException(f"{folder}/manifest.json: is damaged; build the set anew") from None
    sources = Sources(sets, weights, on_bad_shard)
    copied = sum(
        part.reader.entry(part.number)["filesize"] for part in sources.parts if not is_local(part.reader.folder)
    )
    if not stream and copied > cache_limit:
        log.warning(
            "Warning: %.1f GB of remote shards, and a cache of %.1f GB: they are fetched again and again; "
            "make the cache larger or use --stream",
            copied / 1e9,
            cache_limit / 1e9,
        )
    return sources


def _named(text: str) -> tuple[str, list[str] | None]:
    """(folder, names of the shards chosen or None for all) that an argument of --shards means."""
    if "://" not in text and Path(text).is_dir():
        return text, None
    if "{" not in text and not text.endswith(".tar"):
        return text.rstrip("/"), None
    try:
        expanded = [one.rpartition("/") for one in braceexpand(text)]
    except ValueError:
        raise click.ClickException(f"{text}: its braces do not match") from None
    folders = {folder for folder, _, _ in expanded}
    if len(folders) > 1:
        raise click.ClickException(f"{text}: names several folders; name each with a --shards of its own")
    return folders.pop() or ".", [name for _, _, name in expanded]
