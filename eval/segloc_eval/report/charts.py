"""Charts as inline SVG, coloured by the page's style sheet, so that they read in light, in dark and in print.

All are WIDTH units wide and shown at most a third larger than that: the letters stay legible on a phone.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from segloc_eval.numbers.compare import Difference
from segloc_eval.report.markup import Child, Markup, digits_for, join, percent, signed, span, tag
from segloc_eval.report.view import View

WIDTH = 400.0
LETTER = 6.4  # width of a letter at the charts' 11 units, on average
ROW = 25.0
HUES = 6  # colours of arms; a seventh arm has the first colour and broken lines
FLOOR = 0.05  # shortest axis: differences of hundredths shall not look like victories


@dataclass(frozen=True)
class Point:
    """A place in an axis's units, scores as fractions; `low` and `high` are the ends of its interval in y."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A line of a chart: `hue` is the arm's number; `faint` for one of several seeds."""

    name: str
    hue: int
    points: Sequence[Point]
    faint: bool = False


@dataclass(frozen=True)
class Axis:
    """`ticks` are (place, text); places are in data units, in the logarithm's argument on a log axis."""

    text: str
    low: float
    high: float
    log: bool = False
    ticks: list[tuple[float, str]] = field(default_factory=list)

    def share(self, value: float) -> float:
        """Where the value lies between low (0) and high (1)."""
        if self.log:
            low, high, value = (math.log(max(v, 1e-12)) for v in (self.low, self.high, value))
        else:
            low, high = self.low, self.high
        return (value - low) / ((high - low) or 1.0)


def per_cent_axis(text: str, highest: float) -> Axis:
    """From 0 to a little over the highest score (0..1), with ticks in per cent."""
    top = min(1.0, max(FLOOR, highest * 1.05))
    return Axis(text, 0.0, top, ticks=[(at, f"{100 * at:g}") for at in steps(0.0, top)])


def steps(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from low to high."""
    raw = (high - low) / about or 1.0
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * at, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def legend(names: Sequence[tuple[str, int]], kind: str = "hue") -> Markup:
    """Names behind their colours; (name, number) as in Line, or of errors with kind `err`."""
    return tag(
        "p",
        [tag("span", tag("i", class_=f"{kind} {kind}{number % HUES}"), name, class_="key") for name, number in names],
        class_="legend",
    )


def arm_legend(view: View) -> Markup:
    """Every arm behind its colour."""
    return legend([(arm, view.hue(arm)) for arm in view.arms])


def figure(title: str, chart: Markup) -> Markup:
    """A chart below its title."""
    return tag("figure", tag("figcaption", title), chart, class_="chart")


def grid(figures: Iterable[Markup]) -> Markup:
    """Figures side by side, as many as there is room for."""
    return tag("div", *figures, class_="charts")


def lines(series: Sequence[Line], x: Axis, y: Axis, title: str, marks: bool = False) -> Markup:
    """Lines over two axes; points with `low` and `high` get error bars, `marks` puts a dot on every point."""
    height = 230.0
    left, right, top, bottom = 44.0, WIDTH - 12, 10.0, height - 38

    def at(point_x: float, point_y: float) -> tuple[float, float]:
        return left + (right - left) * x.share(point_x), bottom - (bottom - top) * y.share(point_y)

    drawn: list[Child] = [_frame(x, y, left, right, top, bottom)]
    for number, line in enumerate(series):
        style = f"hue{line.hue % HUES}" + (" faint" if line.faint else "")
        aside = 3.0 * (number - (len(series) - 1) / 2) if marks else 0.0  # error bars of several arms side by side
        places = [at(point.x, point.y) for point in line.points]
        path = " ".join(f"{px + aside:.1f},{py:.1f}" for px, py in places)
        dashes = "5 3" if line.hue >= HUES else None
        drawn.append(
            tag("polyline", tag("title", line.name), points=path, class_=f"line {style}", stroke_dasharray=dashes)
        )
        for point, (px, py) in zip(line.points, places, strict=True):
            if point.low is not None and point.high is not None:
                low, high = (bottom - (bottom - top) * y.share(value) for value in (point.low, point.high))
                drawn.append(_whisker_up(px + aside, low, high, style))
            if marks:
                drawn.append(tag("circle", cx=px + aside, cy=py, r=3.2, class_=f"dot {style}"))
    return _svg(height, title, drawn)


def differences(rows: Sequence[tuple[str, Difference | None]], title: str, unit: str) -> Markup:
    """Differences to the base as bars with intervals, a dot for each of several seeds; None makes a heading."""
    real = [entry for _, entry in rows if entry is not None]
    reach = [value for entry in real for value in (entry["low"], entry["high"], entry["mean"], *entry["seeds"])]
    low, high = min(0.0, *reach, -FLOOR / 5), max(0.0, *reach, FLOOR / 5)
    pad = 0.04 * (high - low)
    places = steps(low - pad, high + pad, 4)
    whole = all(round(100 * value, 6).is_integer() for value in places)
    ticks = [(value, signed(value, 0 if whole else 1)) for value in places]
    x = Axis(unit, low - pad, high + pad, ticks=ticks)
    left = min(132.0, 14 + LETTER * max((len(name) for name, entry in rows if entry), default=0))
    right = WIDTH - 12 - LETTER * max(len(_numbers(entry)) for entry in real) if real else WIDTH
    top = 4.0
    bottom = top + ROW * len(rows)
    drawn: list[Child] = [_frame(x, None, left, right, top, bottom)]

    def at(value: float) -> float:
        return left + (right - left) * x.share(value)

    for number, (name, entry) in enumerate(rows):
        middle = top + ROW * (number + 0.5)
        if entry is None:  # over the grid
            drawn.append(tag("rect", x=0, y=middle - ROW / 2, width=WIDTH, height=ROW, class_="blank"))
            drawn.append(_text(name, 0, middle + 4, "start", class_="strong"))
            continue
        style = "even" if not entry["clear"] else "up" if entry["mean"] > 0 else "down"
        start, end = sorted((at(0.0), at(entry["mean"])))
        drawn += [
            *_name(name, left, middle),
            tag("rect", x=start, y=middle - 5, width=max(end - start, 0.5), height=10, class_=f"bar {style}"),
            _whisker_across(at(entry["low"]), at(entry["high"]), middle, style),
            *(tag("circle", cx=at(seed), cy=middle, r=2, class_=f"dot {style}") for seed in _several(entry["seeds"])),
            _text(_numbers(entry), WIDTH, middle + 4, "end", class_=style),
            tag("line", x1=at(0.0), x2=at(0.0), y1=middle - ROW / 2, y2=middle + ROW / 2, class_="zero"),
        ]
    return _svg(bottom + 36, title, drawn)


def _several(seeds: list[float]) -> list[float]:
    """One seed's difference is the bar's end, and needs no dot."""
    return seeds if len(seeds) > 1 else []


def _numbers(entry: Difference) -> str:
    digits = digits_for(entry)
    return f"{signed(entry['mean'], digits)} ({span(entry['low'], entry['high'], digits, sign=True)})"


def stacked(rows: Sequence[tuple[str, Sequence[float]]], names: Sequence[str], title: str, unit: str) -> Markup:
    """Stacked bars of scores (0..1): one row each, one part per name."""
    highest = max((sum(values) for _, values in rows), default=0.0)
    x = per_cent_axis(unit, highest)
    left = min(110.0, 14 + LETTER * max((len(name) for name, _ in rows), default=0))
    right, top = WIDTH - 12, 6.0
    bottom = top + 28 * len(rows)
    drawn: list[Child] = [_frame(x, None, left, right, top, bottom)]
    for number, (name, values) in enumerate(rows):
        middle, start = top + 28 * (number + 0.5), left
        drawn.append(_text(_cut(name, left - 8), left - 6, middle + 4, "end", name))
        for part, value in enumerate(values):
            width = (right - left) * (x.share(value) - x.share(0.0))
            if width <= 0:
                continue
            text = tag("title", f"{name}, {names[part]}: {percent(value)}")
            drawn.append(
                tag("rect", text, x=start, y=middle - 9, width=width, height=18, class_=f"err err{part % HUES}")
            )
            if width > 26:
                drawn.append(_text(percent(value), start + width / 2, middle + 4, "middle", class_="inside"))
            start += width
    return _svg(bottom + 36, title, drawn)


def matrix(names: Sequence[str], counts: Sequence[Sequence[float]], title: str) -> Markup:
    """A confusion matrix: truth down, prediction across, each row in per cent of itself."""
    longest = max(len(name) for name in names)
    margin = min(100.0, 12 + LETTER * longest)
    cell = min(40.0, (WIDTH - margin - 4) / len(names))
    top = margin
    drawn: list[Child] = [
        _text("truth ↓  found as →", 0, 12, "start"),
    ]
    for row, (name, values) in enumerate(zip(names, counts, strict=True)):
        total = sum(values)
        y = top + cell * row
        drawn.append(_text(_cut(name, margin - 6), margin - 5, y + cell / 2 + 4, "end", name))
        x = margin + cell * (row + 0.5)
        drawn.append(
            tag(
                "g",
                _text(_cut(name, margin - 6), 0, 0, "start", name),
                transform=f"translate({x + 4:.1f} {top - 5:.1f}) rotate(-90)",
            )
        )
        for column, value in enumerate(values):
            share = value / total if total else 0.0
            place = {"x": margin + cell * column, "y": y, "width": cell - 1, "height": cell - 1}
            text = tag("title", f"{name} as {names[column]}: {round(value, 1):g} of {round(total, 1):g}")
            style = "cell" if row == column else "cell off"
            drawn.append(tag("rect", text, **place, class_=style, fill_opacity=0.06 + 0.7 * share))
            if share >= 0.005:
                drawn.append(
                    _text(percent(share, 0), place["x"] + (cell - 1) / 2, y + cell / 2 + 3, "middle", class_="in-cell")
                )
    return _svg(top + cell * len(names) + 4, title, drawn)


def _frame(x: Axis, y: Axis | None, left: float, right: float, top: float, bottom: float) -> Markup:
    """Grid, ticks and names of the axes."""
    parts: list[Child] = []
    for value, text in x.ticks:
        at = left + (right - left) * x.share(value)
        parts.append(tag("line", x1=at, x2=at, y1=top, y2=bottom, class_="grid"))
        parts.append(_text(text, at, bottom + 14, "middle"))
    for value, text in y.ticks if y else ():
        at = bottom - (bottom - top) * y.share(value) if y else 0.0
        parts.append(tag("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(_text(text, left - 5, at + 4, "end"))
    parts.append(_text(x.text, (left + right) / 2, bottom + 30, "middle"))
    if y:
        middle = (top + bottom) / 2
        parts.append(tag("g", _text(y.text, 0, 0, "middle"), transform=f"translate(11 {middle:.1f}) rotate(-90)"))
        parts.append(tag("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
    return join(*parts)


def _whisker_up(x: float, low: float, high: float, style: str) -> Markup:
    return tag(
        "path",
        d=f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6",
        class_=f"whisker {style}",
    )


def _whisker_across(low: float, high: float, y: float, style: str) -> Markup:
    path = f"M{low:.1f} {y:.1f}H{high:.1f}M{low:.1f} {y - 4:.1f}v8M{high:.1f} {y - 4:.1f}v8"
    return tag("path", d=path, class_=f"whisker {style}")


def _text(text: str, x: float, y: float, anchor: str, full: str | None = None, class_: str | None = None) -> Markup:
    hint = tag("title", full) if full is not None and full != text else None
    return tag("text", hint, text, x=x, y=y, text_anchor=anchor, class_=class_)


def _name(name: str, left: float, middle: float) -> list[Markup]:
    """A row's name before its bar, in two lines where it is too long for one."""
    first, *rest = textwrap.wrap(name, max(3, int((left - 8) / LETTER))) or [""]
    lines = [(first, -1.5), (_cut(" ".join(rest), left - 8), 9)] if rest else [(first, 4)]
    return [_text(line, left - 6, middle + down, "end", name) for line, down in lines]


def _cut(text: str, room: float) -> str:
    letters = max(3, int(room / LETTER))
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _svg(height: float, title: str, drawn: Sequence[Child]) -> Markup:
    return tag("svg", tag("title", title), *drawn, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=title)
