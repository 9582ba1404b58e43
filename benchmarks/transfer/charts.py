"""The charts of docs/EVIDENCE.md, drawn from the records as pictures that read on light and on dark pages."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.transfer.arms import Experiment
from benchmarks.transfer.tables import Column, Score, by_seed, columns, difference

from segloc_eval.numbers.compare import Difference
from segloc_eval.report import charts


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


def standalone(svg: str) -> str:
    """An inline SVG of the evaluation's report as a file of its own, with its size and the style sheet's rules."""
    style = files("segloc_eval.report").joinpath("style.css").read_text()
    colours = re.findall(r":root \{[^}]*\}|@media[^{]*dark\) \{ :root \{[^}]*\} \}", style)
    rules = re.findall(r"^(?:svg|\.hue)[^\n]*", style, re.MULTILINE)
    height = re.search(r'viewBox="0 0 \S+ (\S+)"', svg)
    assert colours and rules and height
    size = f'xmlns="http://www.w3.org/2000/svg" width="{1.6 * charts.WIDTH:g}" height="{1.6 * float(height[1]):g}"'
    inner = "\n".join([*colours, *rules]).replace("width: 100%; height: auto;", "")
    return svg.replace("<svg ", f"<svg {size} ", 1).replace(">", f"><style>{inner}</style>", 1) + "\n"


def write(records: Sequence[dict[str, Any]], experiments: Sequence[Experiment], folder: Path) -> list[Path]:
    """evidence-NAME.svg of every experiment with two arms of two seeds or more, one for each share of the labels where
    there are several; returns what was written."""
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
    return written
