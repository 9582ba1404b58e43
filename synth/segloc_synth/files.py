"""Files that are whole or absent: atomic writes, output folders, the user's cache."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import click
from upath import UPath


def as_path(text: str) -> Path:
    """A local path as a Path; a URL that fsspec knows, such as s3://bucket/key, as a UPath, which is used alike."""
    return cast(Path, UPath(text)) if "://" in text else Path(text)


class PathOrUrl(click.ParamType):
    """A path or fsspec URL on the command line, see as_path."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return as_path(value) if isinstance(value, str) else value


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Binary file that appears under `path` only when the block ends well: temporary name, fsync, rename."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with tmp.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)


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
        raise click.ClickException(f"{path}: cannot be read ({error.strerror})") from None
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
    """The user's cache for SegLoc: $SEGLOC_CACHE, else $XDG_CACHE_HOME/segloc, else ~/.cache/segloc."""
    if own := os.environ.get("SEGLOC_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "segloc"
