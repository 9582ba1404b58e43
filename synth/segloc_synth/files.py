"""Files that are whole or absent, on disks and in object stores: atomic writes, output folders, the user's cache."""

import base64
import errno
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import click
from upath import UPath

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # what only writing can meet
SCRATCH = ".tmp"  # folder beside a file for what is not whole yet: what a killed run left is found without a listing
ABANDONED = 3600.0  # seconds without a write after which another machine's temporary counts as left over
THREADS = 32  # requests to an object store at a time
Item = TypeVar("Item")
Result = TypeVar("Result")


def as_path(text: str) -> Path:
    """A local path as a Path; a URL that fsspec knows, such as s3://bucket/key, as a UPath, which is used alike.

    Listings are never cached: other processes write to the same store.
    """
    if "://" not in text:
        return Path(text)
    if text.startswith("file://"):
        return Path(UPath(text).path)
    return cast(Path, UPath(text, use_listings_cache=False))


def absolute(path: Path) -> Path:
    """Absolute and without `..`, with its links kept: what lies beside a link is not what lies beside its target.

    A path in a store is so already.
    """
    return Path(os.path.abspath(path)) if is_local(path) else path  # noqa: PTH100


def is_local(path: Path) -> bool:
    """Whether a path from as_path is a file of this machine, not an object in a store."""
    return isinstance(path, Path)


class PathOrUrl(click.ParamType):
    """A path or fsspec URL on the command line, see as_path."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not isinstance(value, str):
            return value
        try:
            path = as_path(value)
            if not is_local(path):
                _ = cast(UPath, path).fs
        except (ImportError, ValueError) as error:  # the store's library is not installed, or nobody knows it
            self.fail(f"{value}: {error}", param, ctx)
        return path


class Hashed:
    """A binary file with the digest of all that is written to it (or read from it) in order."""

    def __init__(self, file: IO[bytes], algorithm: str = "sha256") -> None:
        self._file = file
        self.digest = hashlib.new(algorithm, usedforsecurity=False)
        self.size = 0

    def _seen(self, data: bytes) -> None:
        self.digest.update(data)
        self.size += len(data)

    def write(self, data: bytes) -> int:
        self._seen(data)
        return self._file.write(data)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._seen(data)
        return data


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Binary file that appears under `path` only when the block ends well.

    Local: temporary name, fsync, rename. In an object store: temporary key, checked against what the store tells
    of it, then copied. An OSError without a file name, such as a full disk's or a store's, gets that of `path`; so
    gets the one raised for a store that takes no files.
    """
    tmp = _temporary(path)
    try:
        if is_local(path):
            with _in_scratch(lambda: tmp.open("wb"), tmp, path) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            tmp.replace(path)
        else:
            with tmp.open("wb") as file:
                sent = Hashed(file, "md5")
                yield cast(IO[bytes], sent)
            _check_stored(tmp, sent)
            cast(UPath, path).fs.cp_file(cast(UPath, tmp).path, cast(UPath, path).path)
    except NotImplementedError:
        raise read_only(path) from None
    except OSError as error:
        if error.filename in (None, str(tmp)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError, NotImplementedError):  # the first error is the one to tell
            tmp.unlink(missing_ok=True)
        _drop_scratch(path.parent)


def read_only(path: Path) -> OSError:
    """The error of a store that can only be read, such as a web server."""
    return OSError(errno.EROFS, "this store can only be read; name a folder or a store that takes files", str(path))


def _temporary(path: Path) -> Path:
    """Its name tells whose it is, see remove_left_overs."""
    return path.parent / SCRATCH / f"{path.name}~{socket.gethostname()}~{os.getpid()}"


def _in_scratch(make: Callable[[], Result], tmp: Path, path: Path) -> Result:
    """The result of `make`, which makes `tmp`, in a folder for it; an OSError is about `path`, which it is for."""
    for attempt in range(100):
        try:
            tmp.parent.mkdir(parents=True, exist_ok=True)
            return make()
        except OSError as error:
            # Another process removes the empty folder in between.
            if attempt == 99 or not isinstance(error, FileNotFoundError | FileExistsError):
                error.filename = str(path)
                raise
    raise AssertionError


def _drop_scratch(folder: Path) -> None:
    if is_local(folder):
        with suppress(OSError):  # absent, or in use
            (folder / SCRATCH).rmdir()


def _check_stored(path: Path, sent: Hashed) -> None:
    """OSError unless the object at `path` is what was sent.

    Its MD5 is compared where the store tells it: as `md5Hash` on Google, as ETag of an unencrypted S3 object sent in
    one part. Elsewhere the object is read back.
    """
    info = cast(UPath, path).fs.info(cast(UPath, path).path)
    digest, told = sent.digest.digest(), str(info.get("md5Hash") or info.get("ETag", "")).strip('"')
    if info["size"] == sent.size:
        if told in (digest.hex(), base64.b64encode(digest).decode()):
            return
        with path.open("rb") as file:
            if hashlib.file_digest(file, "md5").digest() == digest:
                return
    raise OSError(errno.EIO, f"{info['size']} bytes arrived in the store that are not the {sent.size} sent", str(path))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well and is removed otherwise.

    Its own files, not those of folders in it, are synced first: no power loss leaves half an entry of the bank.
    Where `folder` has content by then, made by a process that was faster, that stays. What killed processes left
    beside it is removed first. An OSError of a full disk, or about a file in the temporary folder, is made one about
    `folder`, the name that users know.
    """
    tmp = _temporary(folder)
    try:
        remove_left_overs(folder.parent)
        _in_scratch(tmp.mkdir, tmp, folder)
        yield tmp
        for path in tmp.iterdir():
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        try:
            tmp.replace(folder)
        except OSError:
            if not (folder.is_dir() and any(folder.iterdir())):
                raise
    except OSError as error:
        if error.errno in FULL or _is_below(error.filename, folder.parent / SCRATCH):
            error.filename = str(folder)
        raise
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
        _drop_scratch(folder.parent)


def remove_left_overs(folder: Path) -> None:
    """Remove the temporary files and folders of dead processes in `folder`; those of living ones stay."""
    try:
        found = list((folder / SCRATCH).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in found:
        if _is_dead(path):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    _drop_scratch(folder)


def _is_dead(path: Path) -> bool:
    """Whether nobody goes on writing to a temporary: its process ended, or, elsewhere, is silent for long."""
    _, host, pid = ("~~" + path.name).rsplit("~", 2)
    if host == socket.gethostname() and pid.isdecimal():
        return int(pid) == os.getpid() or not _is_alive(int(pid))
    try:
        last = max(part.stat().st_mtime for part in (path, *(path.rglob("*") if path.is_dir() else ())))
    except FileNotFoundError:
        return False  # it was just finished
    return time.time() - last > ABANDONED


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text()
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's, or no /proc here
    return stat.rpartition(")")[2].split()[0] != "Z"  # killed, but nobody has waited for it


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], local: bool) -> Iterator[Result]:
    """Yield function(item) in order: one after the other where files are `local`, else many requests at a time."""
    if local:
        yield from map(function, items)
        return
    rest = iter(items)
    with ThreadPoolExecutor(THREADS) as pool:
        while group := list(islice(rest, 32 * THREADS)):  # bounded, so that a million items need no memory
            yield from pool.map(function, group)


def json_bytes(value: Any, indent: int | None = 1) -> bytes:
    """Canonical JSON in ASCII (file names need not be UTF-8): keys in the order given, newline at the end, no NaN."""
    return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write `value` as canonical JSON, atomically."""
    with atomic_write(path) as file:
        file.write(json_bytes(value, indent))


def read_json(path: Path) -> Any:
    """Parse a JSON file; a click.ClickException names the file when it is missing, unreadable or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise click.ClickException(f"{path}: no such file") from None
    except OSError as error:
        raise click.ClickException(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{path}: not valid JSON ({error})") from None


def output_dir(path: Path, remedy: str) -> Path:
    """Create `path`, or accept it when empty; click.ClickException with `remedy` when it holds anything."""
    if path.exists() and not path.is_dir():
        raise click.ClickException(f"{path}: is a file; name a folder for the output")
    if path.is_dir() and any(path.iterdir()):
        raise click.ClickException(f"{path}: folder is not empty; {remedy}")
    path.mkdir(parents=True, exist_ok=True)
    return path


def cache_dir() -> Path:
    """The user's cache for SegLoc: $SEGLOC_CACHE, else $XDG_CACHE_HOME/segloc, else ~/.cache/segloc.

    click.ClickException where there is no home folder to find it in.
    """
    own, shared = os.environ.get("SEGLOC_CACHE"), os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(own).expanduser() if own else Path(shared).expanduser() / "segloc"
    except RuntimeError:
        told = f"$SEGLOC_CACHE is {own}, and that user has" if own else "this user has"
        raise click.ClickException(f"{told} no home folder; name a folder for the cache by $SEGLOC_CACHE") from None


def cache_remedy(path: object) -> str:
    """What to say behind an error about the file `path`: where the cache can be put, if it lies in it; else ''."""
    with suppress(click.ClickException):
        if _is_below(path, cache_dir()):
            return "; name another folder for the cache by $SEGLOC_CACHE"
    return ""


def _is_below(path: object, folder: Path) -> bool:
    return isinstance(path, str) and absolute(Path(path)).is_relative_to(absolute(folder))
