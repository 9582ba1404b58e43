"""Where the picture lies that a label file names: below the data set's folders, whatever machine wrote its path."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from segloc_synth.sources.listing import sizes_below
from segloc_synth.sources.problems import FOREIGN, MISSING
from segloc_synth.sources.text import BadLabel

OUTSIDE = "image entry with a file_name that is absolute or leads out of the folder"
UNREADABLE = "image file may not be read"
DRIVE = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Found:
    """A picture's file, its bytes, and the kind of problem with its name, '' for none."""

    path: Path
    size: int
    note: str = ""


class Finder:
    """Looks pictures up in the folders where they may lie, the first first."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._sizes = [(folder, sizes_below(folder)) for folder in folders]
        self._looked = f"(looked in {', '.join(dict.fromkeys(f'{folder.name}/' for folder in folders))})"

    def find(self, name: str) -> Found:
        """The picture that a data set calls `name`.

        A path that is absolute or leads out of the folder is never followed: the file is looked for by the path's end,
        the longer the better, as Label Studio's and those of other machines are.

        Raises:
            BadLabel: there is none, or it may not be read.
        """
        plain = name.replace("\\", "/")
        foreign = plain.startswith("/") or DRIVE.match(plain) or ".." in plain.split("/")
        try:
            found = next(filter(None, map(self._look_up, _ends(plain) if foreign else (name, plain))), None)
        except PermissionError:
            raise BadLabel(UNREADABLE) from None
        if found is None:
            raise BadLabel(OUTSIDE) if foreign else BadLabel(MISSING, self._looked)
        return replace(found, note=FOREIGN) if foreign else found

    def _look_up(self, name: str) -> Found | None:
        there = ((folder, size_of(name)) for folder, size_of in self._sizes)
        return next((Found(folder / name, size) for folder, size in there if size is not None), None)


def _ends(path: str) -> Iterator[str]:
    """The ends of a foreign path, the longest first, without steps up; of Label Studio's behind its ?d=."""
    inner = DRIVE.sub("", path.rpartition("?d=")[2], count=1)
    parts = [part for part in PurePosixPath(inner).parts if part != "/"]
    behind = len(parts) - parts[::-1].index("..") if ".." in parts else 0
    for start in range(behind, len(parts)):
        yield "/".join(parts[start:])
