"""What is wrong with a source: one list, counted by kind."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import click

SHOWN = 5  # records listed per kind
LONGEST = 300  # characters of a foreign record that are told

# Kinds whose record is used all the same; every other kind means that the record was left out.
MISSING = "image file is missing"
GREY = "greyscale image, used as grey"
ALPHA = "image with an alpha channel, drawn over white"
DEEP = "16-bit image, scaled to 8 bits"
PALETTE = "palette image, converted to RGB"
TURNED = "image turned upright by its EXIF tag"
PAGES = "image of several pages, its first page used"
TWICE = "annotation whose id another has, renamed"
DUPLICATE = "image of the same bytes as another"
BOX_OUTSIDE = "box reaching outside its image, cut at the edge"
BOX_OF_MASK = "box that is none, taken from its mask"
SAME_NAME = "category whose name another has, taken as one with it"
FOREIGN = "image with a path of another machine, found by its end"
NEAR = "scan whose number is near the other's in its pair, as there is no farther one"
CROWD = "crowd annotation"
TEST_SPLIT = "scan of the test split"
VAL_SPLIT = "scan of the validation split"
UNLISTED = "image without a label"
UNLABELLED = "split whose images have no label file"
DIFFICULT = "difficult object, neither learnt nor scored"
FEW_MASKS = "masks not used, as most objects have none"
EMPTY_CLASS = "class without an object"
NO_BAG = "scan without a bag"
LITTLE_TRUST = "mask derived from a box with little trust"
SHORT = "fewer usable training scans than asked for"
USABLE = frozenset({GREY, ALPHA, DEEP, PALETTE, TURNED, PAGES, TWICE, DUPLICATE, NEAR})
USABLE |= {BOX_OUTSIDE, BOX_OF_MASK, SAME_NAME, FOREIGN}
NOTED = frozenset({UNLISTED, UNLABELLED, DIFFICULT, FEW_MASKS, EMPTY_CLASS, SHORT})  # no record is lost
BY_DESIGN = frozenset({CROWD, TEST_SPLIT, VAL_SPLIT, LITTLE_TRUST})  # left out, but no fault of the data


@dataclass(frozen=True)
class Problem:
    """One record that is not as it should be: its kind, the file, and what in it ('' for the file itself)."""

    kind: str
    file: str
    record: str = ""

    def where(self) -> str:
        return f"{self.file} {self.record}".strip()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def short(value: object) -> str:
    """What a foreign record says, on one printable line of bounded length."""
    text = "".join(char if char.isprintable() else "?" for char in " ".join(str(value).split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def by_kind(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """The problems of each kind, the commonest kind first."""
    groups: dict[str, list[Problem]] = {}
    for problem in problems:
        groups.setdefault(problem.kind, []).append(problem)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def fate(kind: str) -> str:
    """What becomes of a record of this kind: 'used', 'noted' or 'skipped'."""
    return "used" if kind in USABLE else "noted" if kind in NOTED else "skipped"


def faults(problems: Iterable[Problem]) -> list[Problem]:
    """The problems for which a record is lost, other than by design (crowds, test splits, doubtful masks)."""
    return [problem for problem in problems if problem.kind not in USABLE | NOTED | BY_DESIGN]


def describe(problems: Iterable[Problem]) -> list[str]:
    """One line per kind: how many, what became of them, the first few records."""
    lines = []
    for kind, group in by_kind(problems).items():
        first = ", ".join(problem.where() for problem in group[:SHOWN])
        more = f" and {len(group) - SHOWN} more" if len(group) > SHOWN else ""
        lines.append(f"{len(group)} {fate(kind)}: {kind}: {first}{more}")
    return lines


def refuse(problems: list[Problem], source: str) -> None:
    """Under --strict: click.ClickException naming the first bad record, if there is any.

    Records that are used all the same, and those left out by design (crowds, test splits), are none.
    """
    bad = faults(problems)
    if bad:
        first = bad[0]
        raise click.ClickException(
            f"{source}: {len(bad)} problem(s), the first: {first.kind}: {first.where()}; mend it or leave out --strict"
        )
