"""Text of strangers: label files, lists and names of classes, in whatever encoding says itself what it is."""

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from segloc_synth.sources.problems import Problem, short

NO_TEXT = "label file that is no text in UTF-8"
MARKS = {  # the longer first: that of UTF-32 begins as that of UTF-16 does
    "utf-8-sig": (codecs.BOM_UTF8,),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
DECLARED = re.compile(rb"""\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")


class Unusable(ValueError):
    """What cannot be used; the message is the kind of problem, `more` tells of it."""

    def __init__(self, kind: str, more: str = "") -> None:
        super().__init__(kind)
        self.more = more


class BadLabel(Unusable):
    """A label file, or a record of it, that cannot be used."""


@contextmanager
def left_out(problems: list[Problem], file: str, record: str = "") -> Iterator[None]:
    """Around reading a record, or a `file` whole: what is Unusable ends the block, and is added to the problems."""
    try:
        yield
    except Unusable as problem:
        problems.append(Problem(str(problem), short(file), short(f"{record} {problem.more}".strip())))


def decoded(content: bytes, errors: str = "strict") -> str:
    """A file's text: by its byte order mark, by the encoding that its XML declaration names, else as UTF-8.

    `errors` "surrogateescape" keeps other bytes, as names of files have them.

    Raises:
        BadLabel: it is none of these; to guess would make names of classes that nobody wrote.
    """
    encoding = next((name for name, marks in MARKS.items() if content.startswith(marks)), None)
    declared = None if encoding else DECLARED.match(content)
    try:
        text = content.decode(encoding or (declared[1].decode() if declared else "utf-8"), errors)
    except (LookupError, UnicodeError):
        raise BadLabel(NO_TEXT) from None
    if text.count("\0") * 4 > len(text):  # UTF-16 without a mark, or no text at all
        raise BadLabel(NO_TEXT)
    return text


def read_text(path: Path, errors: str = "strict") -> str:
    """A text file whole, see `decoded`; click.ClickException names it where its encoding cannot be told."""
    try:
        return decoded(path.read_bytes(), errors)
    except BadLabel:
        raise click.ClickException(f"{path}: is no text in UTF-8; save it in that encoding") from None


def read_entries(path: Path, errors: str = "strict") -> list[str]:
    """What the lines of a text file say, without blank lines and those that begin with #; read as by `read_text`."""
    lines = (line.strip() for line in read_text(path, errors).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def csv_rows(text: str) -> list[list[str]]:
    """The rows of a CSV file that hold anything, whatever its line ends; a torn quote ends at the file's end."""
    csv.field_size_limit(sys.maxsize)
    return [row for row in csv.reader(io.StringIO(text, newline="")) if row]
