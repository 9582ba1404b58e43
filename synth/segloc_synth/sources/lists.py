"""Lists of scans in all the ways that people write them, and the pictures that their lines mean."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath

import click

from segloc_synth.sources.listing import EXTENSIONS
from segloc_synth.sources.problems import MISSING, Problem, short
from segloc_synth.sources.text import csv_rows, read_text

LISTS = frozenset({".txt", ".csv", ".lst"})  # extensions
FLAGS = frozenset({"1", "-1", "0"})  # of a class: there, not there, unsure


def parted(name: str) -> tuple[tuple[str, ...], str]:
    """The parts of a path, the last without the extension of a picture, and that extension in lower case."""
    stem, extension = os.path.splitext(name)  # noqa: PTH122, a million names
    if extension.lower() not in EXTENSIONS:
        stem, extension = name, ""
    return tuple(part for part in stem.split("/") if part not in ("", ".")), extension.lower()


class Pictures:
    """The pictures of a data set, given as paths with "/", looked up by whatever somebody calls them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_stem: dict[str, list[str]] = {}
        for name in names:
            self._by_stem.setdefault(parted(name)[0][-1].casefold(), []).append(name)
        self.words = max((len(stem.split()) for stem in self._by_stem), default=0)  # of the longest name

    def find(self, entry: str) -> list[str]:
        """The pictures that an entry of a list means: a stem, a file's name or a path, relative or not.

        Those are preferred that are written in the same case; of which the shorter of the two paths is the end of the
        longer; that have the same extension, where the entry has one: a list may name the masks, or what they were.
        None for what may be several paths: each is asked for by itself, a folder's name with spaces by its end.
        """
        parts, extension = parted(entry.strip().strip("\"'").replace("\\", "/"))
        several = any("/" in word or "\\" in word for word in entry.split()[1:])  # paths, or one with spaces in folders
        if several or not parts:
            return []
        fits = [(*parted(name), name) for name in self._by_stem.get(parts[-1].casefold(), ())]
        fits = [fit for fit in fits if fit[0][-1] == parts[-1]] or fits
        fits = [fit for fit in fits if all(a == b for a, b in zip(fit[0][::-1], parts[::-1], strict=False))] or fits
        fits = [fit for fit in fits if fit[1] == extension] or fits
        return [name for _, _, name in fits]


@dataclass(frozen=True)
class Part:
    """Pictures of a data set by name: those of a split, or what a list names.

    `listing`: the list, None where folders tell; `benign`: the pictures of which it says that they hold no object;
    `lost`: entries of it that mean no picture.
    """

    pictures: tuple[str, ...]
    listing: Path | None = None
    benign: frozenset[str] = frozenset()
    lost: tuple[str, ...] = ()

    def missing(self) -> list[Problem]:
        """What its list names and is not there."""
        return [Problem(MISSING, name, f"listed in {self.listing.name}") for name in self.lost if self.listing]


def read_listing(path: Path, pictures: Pictures) -> Part:
    """The pictures that a list names: a line, or a row of a csv, each.

    A line may hold more than a name: the mask's path, a flag, more names, quotes; names may have spaces. In a csv, what
    follows the name may be 1, -1 or 0 per class.

    click.ClickException when none of its lines means a picture: then it is written in a way that is not understood.
    """
    text = read_text(path)
    rows = csv_rows(text) if path.suffix.lower() == ".csv" else [[line] for line in text.splitlines()]
    found: dict[str, None] = {}
    benign: set[str] = set()
    lost: list[str] = []
    for row in rows:
        if not any(cell.strip() for cell in row) or row[0].lstrip().startswith("#"):
            continue
        mine = _meant(row, pictures)
        found |= dict.fromkeys(mine)
        if not mine and (found or lost or path.suffix.lower() != ".csv"):  # a csv begins with its heading
            lost.append(row[0].strip().strip("\"'"))
        flags = [cell.strip() for cell in row[1:]]
        if flags and FLAGS.issuperset(flags) and "1" not in flags:
            benign.update(mine)
    if rows and not found:
        raise click.ClickException(
            f"{path}: none of its lines names a picture of the data set "
            f"(the first: {short((lost or rows[0])[0])!r}); write a file's name or path a line"
        )
    return Part(tuple(found), path, frozenset(benign), tuple(lost))


def _meant(row: Sequence[str], pictures: Pictures) -> list[str]:
    """All pictures that a row names: the guard of test splits must miss none."""
    found = pictures.find(row[0])  # whole first, as a name may hold what else parts names
    rest = row[1:] if found else [part for cell in row for part in re.split(r"[\t;,]", cell)]
    for place, cell in enumerate(rest):
        if cell.strip() not in FLAGS or not (found or place):
            found += pictures.find(cell) or _in_words(cell.split(), pictures)
    return found


def _in_words(words: Sequence[str], pictures: Pictures) -> list[str]:
    """The pictures named by words one after the other, each by as many of them as it can be."""
    found: list[str] = []
    place = 0
    while place < len(words):
        ends = range(min(len(words), place + pictures.words), place, -1)
        names, place = next(
            ((names, end) for end in ends if (names := pictures.find(" ".join(words[place:end])))), ([], place + 1)
        )
        found += names
        while found and place < len(words) and words[place] in FLAGS:
            place += 1
    return found


def in_common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths, given as their parts, begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def stem_path(name: str) -> str:
    """A path with "/" without its extension."""
    return str(PurePosixPath(name).with_suffix("")) if name else name
