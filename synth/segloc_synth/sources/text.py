"""Text of strangers: label files, lists and names of classes, in whatever encoding says itself what it is."""

import codecs
import csv
import io
import re
from pathlib import Path

import click

NO_TEXT = "label file that is no text in UTF-8"
MARKS = (  # the longer first: that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DECLARED = re.compile(rb"""\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")


class BadLabel(ValueError):
    """A label file, or a record of it, that cannot be used; the message is the kind of problem."""


def decoded(content: bytes, errors: str = "strict") -> str:
    """A file's text: by its byte order mark, by the encoding that its XML declaration names, else as UTF-8.

    `errors` "surrogateescape" keeps other bytes, as names of files have them.

    Raises:
        BadLabel: it is none of these; to guess would make names of classes that nobody wrote.
    """
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), None)
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


def csv_rows(text: str) -> list[list[str]]:
    """The rows of a CSV file that hold anything, whatever its line ends; a torn quote ends at the file's end."""
    lines = io.StringIO(text, newline="")
    csv.field_size_limit(1 << 24)
    try:
        return [row for row in csv.reader(lines) if row]
    except csv.Error:
        return [line.split(",") for line in text.splitlines() if line.strip()]
