"""What the three command-line tools share: exit codes, one-line errors, progress."""

import getpass
import logging
import math
import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from tqdm import tqdm

from segloc_synth.files import cache_remedy

log = logging.getLogger("segloc")
T = TypeVar("T")
LOG_EVERY = 10.0  # seconds between progress lines where there is no terminal
# Libraries whose errors tell of a store, not a bug.
STORES = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "huggingface_hub", "requests", "urllib3"}
STORES |= {"httpcore", "httpcore2", "httpx", "httpx2"}  # the Hugging Face Hub's


class Finite(click.FloatRange):
    """A range of floats for a command-line option that takes neither nan nor inf."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return float(number)


class LocalPath(click.Path):
    """A path on a command line that is no URL: what is written there is also read again, or locked, or linked."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value} is no folder of this machine; name one, and copy it there afterwards", param, ctx)
        return super().convert(value, param, ctx)


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fault(error: Exception) -> str | None:
    """One line for what the world does to a program (disk full, permission denied, no way to the store); else None."""
    if isinstance(error, OSError):  # the system's own words are the clear line
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}{cache_remedy(error.filename)}"
    if type(error).__module__.partition(".")[0] in STORES:
        return str(error).strip().partition("\n")[0]
    return None


@contextmanager
def faults_of(what: object, missing: str | None = None) -> Iterator[None]:
    """Turn what the world does while the block runs, see fault, into a click.ClickException that names `what`.

    `missing` is what to say of a file that is not there, instead of the system's words.
    """
    try:
        yield
    except Exception as error:
        line = missing if missing and isinstance(error, FileNotFoundError) else fault(error)
        if line is None:
            raise
        raise click.ClickException(f"{what}: {line}") from None


def cause(error: Exception) -> str:
    """What went wrong in a DataLoader's process, in one line: the last of what was caught in it with its traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1 if lines[0].startswith("Caught") else 0]


def run(command: click.Command) -> NoReturn:
    """Run a click command and exit: 0 done, 1 error, 2 wrong usage, 130 Ctrl-C. A user's mistake is one line."""
    _open_standard_streams()
    _name_user()
    # Threads that wait for each other shall soon sleep, not spin: beside other busy processes a step is several times
    # faster so, alone it is as fast. Read when the numerical library is loaded, which the commands do late.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)  # libraries speak up only when something is wrong
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr's: names of files may be in any encoding
    try:
        code = command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        code = 130
    except Exception as error:
        line = fault(error)
        if line is None:
            raise
        click.echo(f"Error: {line}", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _open_standard_streams() -> None:
    """Open on nothing what was closed of stdin, stdout and stderr, as a daemon's are.

    Else the next file to be opened takes a closed one's number, and what a library or a child prints goes into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115


def _name_user() -> None:
    """Make a name for a user id without an entry in /etc/passwd, as containers have: torch asks when imported."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"uid{os.getuid()}"


def progress(items: Iterable[T], total: int, what: str, done: int = 0) -> Generator[T, None, None]:
    """Pass `items` through under a progress bar on a terminal, a log line now and then off it.

    `total` counts items, `done` those finished before (a resumed job).
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, initial=done, desc=what, unit="", dynamic_ncols=True)
        return
    start = last = time.monotonic()
    count = logged = done
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= LOG_EVERY and count < total:
            rate = (count - logged) / (now - last)  # the recent one: what an earlier run did passes quickly
            log.info("%s: %d of %d, about %.0f s left", what, count, total, (total - count) / rate)
            last, logged = now, count
    log.info("%s: %d of %d in %.0f s", what, count, total, time.monotonic() - start)
