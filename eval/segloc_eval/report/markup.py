"""HTML and SVG built from nested calls: whatever is not Markup is escaped, so no name of an arm or class can break out.

Numbers as the reader sees them live here too: scores 0..1 become per cent, differences points with a sign.
"""

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

from segloc_eval.numbers.compare import Difference, Estimate

VOID = {"img", "meta", "br"}
DASH = "–"


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | float | Iterable[Child] | None"


def join(*children: Child) -> Markup:
    """The children one behind another: Markup as it is, other text escaped, None left out, lists flattened."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str | float | int):
            parts.append(escape(_short(child)))
        elif child is not None:
            parts.append(join(*child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """One element; `class_` is class, other underscores are hyphens; attributes that are None are left out."""
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{shown}>" if name in VOID else f"<{name}{shown}>{join(*children)}</{name}>")


def _short(value: str | float) -> str:
    """Coordinates to a hundredth of a pixel, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def table(head: list[Child], rows: Iterable[list[Child]], class_: str | None = None) -> Markup:
    """A table that scrolls by itself; a row of one cell is a heading over the rows below it."""
    lines = [tag("tr", [tag("th", cell, scope="col") for cell in head])]
    for row in rows:
        if len(row) == 1:
            lines.append(tag("tr", tag("th", row, scope="rowgroup", colspan=len(head)), class_="group"))
        else:
            lines.append(tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]))
    return tag("div", tag("table", lines, class_=class_), class_="wide")


def fold(summary: Child, *children: Child, open_: bool = False, class_: str | None = None) -> Markup:
    """What a click on `summary` unfolds; `open_`: unfolded at first."""
    return tag("details", tag("summary", summary), *children, open="" if open_ else None, class_=class_)


def dim(*children: Child) -> Markup:
    """A paragraph in small grey letters: notes and remarks."""
    return tag("p", *children, class_="dim")


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction 0..1 in per cent, without the sign; a dash for None."""
    return DASH if value is None else f"{100 * value:.{digits}f}"


def signed(value: float, digits: int = 1) -> str:
    """A difference of scores in points, with a proper minus sign; plain 0.0 where nothing is left after rounding."""
    text = f"{100 * abs(value):.{digits}f}"
    return text if not float(text) else f"{'+' if value > 0 else '−'}{text}"


def digits_for(difference: Difference) -> int:
    """Digits that keep an interval which excludes zero from touching zero once it is rounded."""
    if not difference["clear"]:
        return 1
    nearest = min(abs(difference["low"]), abs(difference["high"]))
    return next((digits for digits in (1, 2, 3) if round(100 * nearest, digits) > 0), 4)


def span(low: float, high: float, digits: int = 1, sign: bool = False) -> str:
    """An interval in words: `41.0 to 43.5`, or with signs `−0.4 to +1.2`."""
    show = signed if sign else percent
    return f"{show(low, digits)} to {show(high, digits)}"


def estimate_cell(estimate: Estimate | None) -> Markup:
    """A score over its interval, as two lines of a cell."""
    if estimate is None:
        return join(DASH)
    return join(percent(estimate["mean"]), tag("small", span(estimate["low"], estimate["high"])))


def difference_cell(difference: Difference | None) -> Markup:
    """A difference over its interval; coloured, and called ahead or behind, only where the interval excludes zero."""
    if difference is None:
        return join(DASH)
    digits, way = digits_for(difference), direction(difference)
    return join(
        tag("b", signed(difference["mean"], digits), class_=way),
        tag("span", {"up": " ahead", "down": " behind", "even": " not clear"}[way], class_="word"),
        tag("small", span(difference["low"], difference["high"], digits, sign=True)),
    )


def direction(difference: Difference) -> str:
    """up or down where the difference is clear, else even."""
    if not difference["clear"]:
        return "even"
    return "up" if difference["mean"] > 0 else "down"
