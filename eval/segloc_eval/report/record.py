"""How the numbers came about: fine-tuning, cost, failures, data, and everything to repeat it."""

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from segloc_eval.report import charts
from segloc_eval.report.charts import Axis, Line, Point, arm_legend, figure, grid
from segloc_eval.report.markup import DASH, Child, Markup, dim, fold, join, table, tag
from segloc_eval.report.scans import files_of
from segloc_eval.report.view import View

RUNS = 60  # points of a loss curve


def failures(view: View) -> list[Markup]:
    """What is missing from the numbers, and how to get it; nothing when nothing is."""
    failed = view.metrics["failed"]
    if not failed:
        return []
    lines = [
        tag("li", tag("b", one["arm"]), f", {view.label_name(one['labels'])}, seed {one['seed']}: {one['reason']}")
        for one in failed
    ]
    return [
        tag("ul", *lines),
        tag(
            "p",
            "These are missing from all numbers above. Run the same command again to go on: what is finished is kept, "
            "and an interrupted fine-tuning resumes where it was saved. Out of memory: free the device, or name a new "
            "folder and a smaller recipe for all arms." + " Then merge again." * ("parts" in view.metrics),
        ),
        *(
            tag("pre", command)
            for command in dict.fromkeys(one.get("command", view.metrics["command"]) for one in failed)
        ),
    ]


def training(view: View, folders: list[Path]) -> list[Markup]:
    """Loss curves per label size, and what every arm cost."""
    figures = []
    for labels in view.labels:
        series = []
        for unit in view.units(labels):
            log = files_of(unit, folders) / "log.jsonl"
            points = smooth(_losses(log)) if log.is_file() else []
            if points:
                several = len(view.seeds(labels, unit["arm"])) > 1
                name = f"{unit['arm']}, seed {unit['seed']}"
                series.append(Line(name, view.hue(unit["arm"]), points, faint=several))
        if series:
            title = f"Training loss, {view.label_name(labels)}"
            figures.append(figure(title, _loss_chart(series, title)))
    curves = (
        [arm_legend(view), grid(figures), dim("One line per seed, means over neighbouring steps.")] if figures else []
    )
    return [*curves, _cost(view)]


def _losses(log: Path) -> list[tuple[float, float]]:
    """(scans seen, else the step; loss) of each record; a line cut short by a kill is left out."""
    points = []
    for number, line in enumerate(log.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
            points.append((float(record.get("samples", number)), float(record["loss"])))
        except (ValueError, KeyError, TypeError):
            continue
    return points


def smooth(points: list[tuple[float, float]]) -> list[Point]:
    """Means over at most RUNS runs of neighbours: what a curve of so many pixels can show."""
    edges = sorted({round(len(points) * at / RUNS) for at in range(RUNS + 1)})
    return [
        Point(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run))
        for run in (points[start:end] for start, end in pairwise(edges))
    ]


def _loss_chart(series: list[Line], title: str) -> Markup:
    last = max(point.x for line in series for point in line.points)
    top = 1.05 * max(point.y for line in series for point in line.points) or 1.0
    x = Axis("training scans seen", 0.0, last, ticks=[(at, _count(at)) for at in charts.steps(0.0, last, 4)])
    y = Axis("loss", 0.0, top, ticks=[(at, f"{at:g}") for at in charts.steps(0.0, top, 4)])
    return charts.lines(series, x, y, title)


def _count(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def _cost(view: View) -> Markup:
    rows: list[list[Child]] = []
    for labels in view.labels:
        for arm in view.arms:
            units = view.units(labels, arm)
            if not units:
                continue
            trained = [unit["training"] for unit in units if unit.get("training")]
            tested = [unit["testing"] for unit in units if unit.get("testing")]
            rows.append(
                [
                    arm,
                    view.label_name(labels),
                    str(len(units)),
                    _mean(trained, "samples", "{:,.0f}"),
                    _mean(trained, "steps", "{:,.0f}"),
                    duration(sum(one["seconds"] for one in trained)) if trained else DASH,
                    _mean(trained, "seconds_per_scan", "{:.3f} s"),
                    _mean(tested, "seconds_per_scan", "{:.3f} s"),
                    _memory(one.get("peak_memory_bytes") for one in trained),
                    ", ".join(sorted({str(unit["hardware"]) for unit in units if unit.get("hardware")})) or DASH,
                ]
            )
    head: list[Child] = [
        *("arm", "labels", "seeds", "scans seen", "steps", "fine-tuning, all seeds", "a training scan", "a test scan"),
        *("peak memory", "hardware"),
    ]
    return table(head, rows, class_="cost")


def _mean(entries: list[dict[str, Any]], key: str, form: str) -> str:
    values = [entry[key] for entry in entries if entry.get(key) is not None]
    return form.format(sum(values) / len(values)) if values else DASH


def _memory(values: Iterable[float | None]) -> str:
    known = [value for value in values if value]
    return f"{max(known) / 2**30:.1f} GiB" if known else DASH


def duration(seconds: float) -> str:
    """In words, in seconds below two minutes, in minutes below two hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def data(view: View) -> list[Markup]:
    """Scans and objects of each split, and what was wrong with the records."""
    about = view.metrics["data"]
    rows: list[list[Child]] = [
        [name, f"{count:,}", f"{about['objects'].get(name, 0):,}"] for name, count in about["scans"].items()
    ]
    problems = about["problems"]
    listed = [tag("p", "Records with problems:"), tag("ul", [tag("li", line) for line in problems])]
    if len(problems) > 12:
        listed = [fold(f"{len(problems)} lines on records with problems", tag("ul", [tag("li", p) for p in problems]))]
    return [
        table(["split", "scans", "objects"], rows),
        tag("p", f"{len(about['classes'])} classes: {', '.join(about['classes'])}."),
        *(listed if problems else [tag("p", "Every record was usable.")]),
        dim(f"{about.get('path', '')} fingerprint {about['fingerprint']}"),
    ]


def repeat(view: View) -> list[Markup]:
    """Commands, weights, configuration, versions and hardware, of each evaluation where several are merged."""
    metrics = view.metrics
    weights: list[list[Child]] = [
        [arm, metrics["arms"][arm]["source"], tag("code", metrics["arms"][arm]["sha256"] or "no file")]
        for arm in view.arms
    ]
    seeds = sorted({unit["seed"] for unit in view.units()})
    parts: list[Markup] = [
        tag("pre", metrics["command"]),
        tag("p", f"Seeds {', '.join(map(str, seeds))}. Hardware: {metrics['hardware']}. {metrics['date']}."),
        tag(
            "p",
            "Lists of the labelled scans (labels-*.txt), detectors, logs and COCO results files lie "
            + ("in the folders named below." if "parts" in metrics else "beside this page."),
        ),
        table(["arm", "weights", "sha256"], weights, class_="text"),
    ]
    for part in metrics.get("parts", [metrics]):
        words = [] if part is metrics else [tag("pre", part["command"]), dim(f"{part['hardware']}, {part['date']}")]
        versions = "\n".join(f"{name} {version}" for name, version in part["versions"].items())
        config = tag("pre", json.dumps(part["config"], indent=1, ensure_ascii=False))
        title = join("Configuration and versions", None if part is metrics else f" of {part['folder']}")
        parts += [*words, fold(title, config, tag("pre", versions))]
    return parts
