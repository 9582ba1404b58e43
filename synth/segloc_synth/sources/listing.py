"""Finding files, local and remote: one listing per source, sizes included, however many files; and a few of many."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath

import click
import numpy as np
from upath import UPath

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"})

NO_NAME = (errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP)  # errors of what no file can be called

Listed = list[tuple[str, int]]  # path relative to a folder, with "/", and bytes; sorted


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """Turn what a file system raises while `path` is read into one click.ClickException that names it."""
    try:
        yield
    except FileNotFoundError:
        raise click.ClickException(f"{path}: no such file, folder or bucket") from None
    except PermissionError as error:
        raise click.ClickException(f"{error.filename or path}: may not be read ({error.strerror or error})") from None
    except ImportError as error:
        raise click.ClickException(f"{path}: needs a library for its protocol ({error})") from None
    except click.ClickException:
        raise
    except Exception as error:
        if not isinstance(path, UPath):
            raise
        raise _unreachable(path, error) from None


def _unreachable(path: Path | UPath, error: Exception) -> click.ClickException:
    """For whatever a remote file system raises: its client library's own errors have no common class."""
    words = " ".join(str(error).split()) or type(error).__name__
    return click.ClickException(f"{path}: cannot be reached ({words})")


def remote_bytes(path: UPath) -> bytes:
    """The content of a remote file, read at once.

    Raises:
        FileNotFoundError, PermissionError: as the file system says.
        click.ClickException: it cannot be reached.
    """
    try:
        return bytes(path.fs.cat_file(path.path))  # one request; read_bytes would ask for the size first
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise _unreachable(path, error) from None


def list_files(folder: Path) -> Listed:
    """Every file below `folder`; hidden ones, among them macOS's `._` files, are left out. Links are followed.

    A remote folder is listed by one call that brings the sizes along.
    """
    if isinstance(folder, UPath):
        root = folder.path.rstrip("/") + "/"
        fs = folder.fs
        below = fs.find(root, detail=True)
        found = [
            (name.removeprefix(root).lstrip("/"), int(info["size"] or 0))
            for name, info in ((str(name), info) for name, info in below.items())
            if info["type"] == "file"
        ]
        return sorted(
            (name, size) for name, size in found if name and not any(part[:1] == "." for part in name.split("/"))
        )
    return sorted(_walk(folder, "", {os.path.realpath(folder)}))


def _walk(folder: Path | str, prefix: str, seen: set[str]) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if entry.is_symlink():  # a link upwards would never end
                    real = os.path.realpath(entry.path)
                    if real in seen:
                        continue
                    seen.add(real)
                yield from _walk(entry.path, f"{prefix}{entry.name}/", seen)
            elif entry.is_file():
                yield prefix + entry.name, entry.stat().st_size


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder; False too for what a system takes for no name, as a stranger's may be."""
    try:
        return path.exists()
    except ValueError:
        return False
    except OSError as error:
        if error.errno not in NO_NAME:
            raise
        return False


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, in order of their names, hidden ones left out; none where it is no folder."""
    return [path for path in _inside(folder) if path.is_dir()]


def files_in(folder: Path, *extensions: str) -> list[Path]:
    """The files in `folder` with one of these extensions (in any case), in order, hidden ones left out."""
    return [path for path in _inside(folder) if path.suffix.lower() in extensions and path.is_file()]


def _inside(folder: Path) -> list[Path]:
    if not is_there(folder) or not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=lambda path: path.name)


def child(folder: Path, name: str) -> Path:
    """The folder of that name in `folder`, in whatever case it is written; `folder / name` where there is none."""
    exact = folder / name
    if is_there(exact) and exact.is_dir():
        return exact
    return next((path for path in subfolders(folder) if path.name.lower() == name.lower()), exact)


def is_image(name: str) -> bool:
    """Whether a file's name has the extension of a picture, see EXTENSIONS."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122, a Path per name of a million is slow


def list_images(folder: Path) -> Listed:
    """Image files below `folder`, see list_files."""
    return [(name, size) for name, size in list_files(folder) if is_image(name)]


def stems(names: Iterable[str]) -> list[str]:
    """The names without extension; where two would be alike, with it."""
    names = list(names)
    short = [os.path.splitext(name)[0] for name in names]  # noqa: PTH122
    if len(set(short)) == len(short):
        return short
    seen: set[str] = set()
    twice = {name for name in short if name in seen or seen.add(name)}  # type: ignore[func-returns-value]
    return [name if brief in twice else brief for name, brief in zip(names, short, strict=True)]


def spread(total: int, count: int) -> list[int]:
    """At most `count` places spread evenly over 0..total-1, in order, the first and the last among them."""
    return [int(place) for place in np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))]


def sizes_below(folder: Path) -> Callable[[str], int | None]:
    """A function from a path relative to `folder` to the file's bytes, None when it is missing.

    Local files are asked for one by one: few files of a large folder may be wanted, and asking is cheap.
    """
    if isinstance(folder, UPath):
        remote = dict(list_files(folder))
        return lambda name: remote.get(str(PurePosixPath(name)))

    def local(name: str) -> int | None:
        path = folder / name
        try:
            return path.stat().st_size if path.is_file() else None
        except OSError as error:
            if error.errno not in NO_NAME:
                raise
            return None

    return local


def fingerprint(files: Listed) -> str:
    """sha256 of the JSON of the (path, size) list, hashed piece by piece."""
    digest = hashlib.sha256(b"[")
    rest = iter(files)
    first = True
    while piece := list(islice(rest, 10_000)):
        digest.update(b"" if first else b", ")
        digest.update(json.dumps(piece)[1:-1].encode())
        first = False
    digest.update(b"]")
    return digest.hexdigest()
