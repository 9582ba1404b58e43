"""Local copies of remote shards, whole and checked, in a folder of bounded size that any number of processes share."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from segloc_synth.console import fault, faults_of
from segloc_synth.files import SCRATCH, Hashed, as_path, atomic_write, remove_left_overs

CHUNK = 1 << 20  # bytes
LIMIT = 50 * 10**9  # bytes that a cache may hold unless told otherwise


class ShardCache:
    """Shards by their sha256. Above the limit, those that were opened longest ago are deleted.

    The limit holds for what lies in the folder and what is being fetched, all processes together, unless these fetch
    more at a time than it allows. A process that has a deleted shard open keeps its bytes until it closes it.

    Attributes:
        folder: made when first used.
        limit: bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def open(self, remote: Path, entry: dict[str, Any]) -> int:
        """A descriptor of the local copy of a shard, fetched unless it is there.

        Args:
            remote: path of the shard, as segloc_synth.files.as_path makes it.
            entry: the manifest's, whose `filesize` and `sha256` a copy must have.

        Raises:
            click.ClickException: the shard cannot be fetched, is not what the manifest says, or cannot be kept.
        """
        path = self.folder / f"{entry['sha256']}.tar"
        if entry["filesize"] > self.limit:
            raise click.ClickException(
                f"{remote}: has {entry['filesize']} bytes, more than the cache may hold ({self.limit}); raise its limit"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while (descriptor := self._opened(path, entry["filesize"])) is None:  # others may delete it at once
                with self._lock(f"{path.stem[:2]}.lock"):  # one process fetches, others wait for it
                    if not path.exists():
                        self._copy(remote, entry, path)
        except OSError as error:
            error.filename = str(self.folder)
            raise click.ClickException(fault(error) or str(error)) from None
        return descriptor

    def _opened(self, path: Path, size: int) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size == size:
            os.utime(descriptor)  # used just now
            return descriptor
        os.close(descriptor)
        path.unlink(missing_ok=True)  # a disk lost a part of it
        return None

    def _copy(self, remote: Path, entry: dict[str, Any], path: Path) -> None:
        with ExitStack() as stack:
            with self._lock("room.lock"):
                self._make_room(entry["filesize"])
                file = stack.enter_context(atomic_write(path))
                file.truncate(entry["filesize"])  # so that others count it
            copy = Hashed(file)
            for data in _chunks(remote, entry["filesize"] + 1):
                copy.write(data)
            if (copy.size, copy.digest.hexdigest()) != (entry["filesize"], entry["sha256"]):
                raise click.ClickException(f"{remote}: its bytes are not those of the manifest; build it anew")

    def _make_room(self, size: int) -> None:
        """Delete what was used longest ago until `size` bytes more are within the limit."""
        remove_left_overs(self.folder)
        fetching = sum(one.st_size for _, one in _files(self.folder / SCRATCH))
        stored = [(path, one) for path, one in _files(self.folder) if path.suffix == ".tar"]
        total = fetching + sum(one.st_size for _, one in stored) + size
        for path, one in sorted(stored, key=lambda item: item[1].st_mtime_ns):
            if total > self.limit:
                path.unlink(missing_ok=True)
                total -= one.st_size

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Only one process at a time is inside; the system frees it when the process dies."""
        with (self.folder / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """What a folder holds now; other processes rename and delete."""
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                yield path, path.stat()


def _chunks(remote: Path, limit: int) -> Iterator[bytes]:
    """A remote file's bytes, up to about `limit`; click.ClickException where it cannot be read."""
    left = limit
    # Opened anew: a store's connections belong to one process.
    with faults_of(remote, missing="is missing"), as_path(str(remote)).open("rb") as source:
        while left > 0 and (data := source.read(min(CHUNK, left))):
            left -= len(data)
            yield data
