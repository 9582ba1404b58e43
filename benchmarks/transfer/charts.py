"""The charts of docs/EVIDENCE.md, drawn from the records as pictures that read on light and on dark pages."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.transfer.arms import Experiment
from benchmarks.transfer.tables import Column, Estimate, Score, by_seed, columns, difference, on_scans

from segloc_eval.numbers.compare import Difference
from segloc_eval.report import charts
from segloc_eval.report.markup import Child, Markup, tag

PANEL, GAP = 230.0, 20.0  # a panel's height, and what lies between two
WIDER = 1.2  # room beside the first and the last place of a logarithmic axis


def against_base(records: Sequence[dict[str, Any]], experiment: Experiment, share: str, column: Column) -> str:
    """Each arm's difference to the experiment's base, with its interval, the largest first."""
    rows: list[tuple[str, Difference]] = []
    for arm in experiment.arms:
        found = entry(records, experiment, arm.name, share, column.read)
        if found is not None and arm.name != experiment.base:
            rows.append((arm.name, found))
    rows.sort(key=lambda row: -row[1]["mean"])
    part = "" if share == "all" else f" at {share} of the labels"
    unit = f"{column.name}{part} beyond {experiment.base}, points"
    return standalone(str(charts.differences(rows, f"{experiment.question} {unit}", unit)))


def entry(
    records: Sequence[dict[str, Any]], experiment: Experiment, arm: str, share: str, read: Score
) -> Difference | None:
    """An arm's difference to the base as the evaluation's charts take it, in parts of one; None without interval."""
    ours, theirs = (by_seed(records, experiment.name, name, share, read) for name in (arm, experiment.base))
    found = difference(ours, theirs)
    if found is None or found.half is None:
        return None
    mean, half = found.mean / 100, found.half / 100
    seeds = [(ours[seed] - theirs[seed]) / 100 for seed in sorted(ours.keys() & theirs.keys())]
    return Difference(mean=mean, low=mean - half, high=mean + half, seeds=seeds, clear=found.clear)


def over_samples(records: Sequence[dict[str, Any]], experiment: Experiment, share: str) -> str | None:
    """Box AP and k-NN accuracy on scans over the pairs shown, side by side: a line for each number of different pairs,
    and one for the base; None with fewer than two records of arms that set pairs and epochs."""
    panels: list[Child] = []
    named: dict[str, int] = {}
    for column in columns(experiment):
        if column.ahead or column.read is on_scans:
            series, shown = curves(records, experiment, share, column.read)
            if len(shown) < 2:
                return None
            named |= {line.name: line.hue for line in series}
            x = charts.Axis("pairs shown, those of every pass counted", shown[0] / WIDER, shown[-1] * WIDER, log=True)
            x = replace(x, ticks=[(at, f"{at / 1000:g}k") for at in apart(shown)])
            highest = max(one.high or one.y for line in series for one in line.points)
            y = charts.per_cent_axis(f"{column.name}, %", highest)
            drawn = charts.lines(series, x, y, f"{column.name} over the pairs shown", marks=True)
            place = f'x="{len(panels) * (charts.WIDTH + GAP):g}" width="{charts.WIDTH:g}" height="{PANEL:g}"'
            panels.append(Markup(drawn.replace("<svg ", f"<svg {place} ", 1)))
    for number, (name, hue) in enumerate(named.items()):
        left = 44 + 100 * number
        panels.append(tag("rect", x=left, y=PANEL + 6, width=9, height=9, fill="currentColor", class_=f"hue{hue}"))
        panels.append(tag("text", name, x=left + 14, y=PANEL + 14))
    size = f"0 0 {2 * charts.WIDTH + GAP:g} {PANEL + 22:g}"
    title = f"{experiment.question} Box AP and k-NN accuracy over the pairs shown"
    return standalone(tag("svg", tag("title", title), *panels, viewBox=size, role="img", aria_label=title))


def apart(places: Sequence[int]) -> list[int]:
    """Those of ascending places that leave room for a label on a logarithmic axis: each 1.5 times the one before."""
    kept: list[int] = []
    for place in places:
        if not kept or place >= 1.5 * kept[-1]:
            kept.append(place)
    return kept


def curves(
    records: Sequence[dict[str, Any]], experiment: Experiment, share: str, read: Score
) -> tuple[list[charts.Line], list[int]]:
    """A line for each number of different pairs, the fewest first, then the base's from end to end; and the numbers of
    pairs shown, ascending."""
    points: dict[int, dict[int, charts.Point]] = {}
    for arm in experiment.arms:
        values = by_seed(records, experiment.name, arm.name, share, read)
        if arm.start == "pretrained" and arm.pairs and arm.epochs and values:
            shown = arm.pairs * arm.epochs
            points.setdefault(arm.pairs, {})[shown] = point(shown, values.values())
    series = [
        charts.Line(f"{pairs // 1000}k pairs", hue, [line[at] for at in sorted(line)])
        for hue, (pairs, line) in enumerate(sorted(points.items()))
    ]
    ends = sorted({shown for line in points.values() for shown in line})
    base = by_seed(records, experiment.name, experiment.base, share, read)
    if base and ends:
        level = point(0, base.values()).y
        across = [charts.Point(at, level) for at in (ends[0], ends[-1])]
        series.append(charts.Line(experiment.base, charts.HUES - 1, across, faint=True))
    return series, ends


def point(x: float, values: Iterable[float]) -> charts.Point:
    """Mean of the seeds' values, with its interval where there are several, in parts of one."""
    mean, half, _ = Estimate.of([value / 100 for value in values])
    return charts.Point(x, mean) if half is None else charts.Point(x, mean, mean - half, mean + half)


def standalone(svg: str) -> str:
    """An inline SVG of the evaluation's report as a file of its own, with its size and the style sheet's rules."""
    style = files("segloc_eval.report").joinpath("style.css").read_text()
    colours = re.findall(r":root \{[^}]*\}|@media[^{]*dark\) \{ :root \{[^}]*\} \}", style)
    rules = re.findall(r"^(?:svg|\.hue)[^\n]*", style, re.MULTILINE)
    box = re.search(r'viewBox="0 0 (\S+) (\S+)"', svg)
    assert colours and rules and box
    size = f'xmlns="http://www.w3.org/2000/svg" width="{1.6 * float(box[1]):g}" height="{1.6 * float(box[2]):g}"'
    inner = "\n".join([*colours, *rules]).replace("width: 100%; height: auto;", "")
    return svg.replace("<svg ", f"<svg {size} ", 1).replace(">", f"><style>{inner}</style>", 1) + "\n"


def write(records: Sequence[dict[str, Any]], experiments: Sequence[Experiment], folder: Path) -> list[Path]:
    """evidence-NAME.svg of every experiment with two arms of two seeds or more, one for each share of the labels where
    there are several, and evidence-NAME-curve.svg of one over numbers of pairs; returns what was written."""
    written = []
    for experiment in experiments:
        (column,) = (column for column in columns(experiment) if column.ahead)
        others = [arm.name for arm in experiment.arms if arm.name != experiment.base]
        for share in experiment.shares:
            if any(entry(records, experiment, other, share, column.read) for other in others):
                several = f"-{share.rstrip('%')}" if len(experiment.shares) > 1 else ""
                path = folder / f"evidence-{experiment.name}{several}.svg"
                path.write_text(against_base(records, experiment, share, column))
                written.append(path)
            curve = over_samples(records, experiment, share)
            if curve is not None:
                path = folder / f"evidence-{experiment.name}-curve.svg"
                path.write_text(curve)
                written.append(path)
    return written
