"""What stands behind the headline: classes, curves, errors, sizes, confusion, and every number."""

from collections.abc import Callable
from typing import Any

from segloc_eval.numbers.errors import ALL
from segloc_eval.numbers.semantic import apart
from segloc_eval.report import charts
from segloc_eval.report.charts import Axis, Line, Point, arm_legend, figure, grid, per_cent_axis
from segloc_eval.report.markup import DASH, Child, Markup, dim, fold, percent, table
from segloc_eval.report.view import View

ERRORS = {  # of TIDE (Bolya et al., ECCV 2020), at IoU 0.5 / 0.1
    "classification": "right place, wrong class",
    "localisation": "right class, box or mask too far off (IoU 0.1 to 0.5)",
    "both": "wrong class and too far off",
    "duplicate": "object was found by a better detection already",
    "background": "nothing there",
    "missed": "object that no detection accounts for",
}
BEST = "each arm's N best detections, N being the number of objects"
Section = Callable[[View, str], list[Markup]]


def by_labels(view: View, section: Section) -> list[Markup]:
    """The section for each label size; of several the smallest is open, the others folded (not in print)."""
    if len(view.labels) == 1:
        return section(view, view.labels[0])
    parts = [(labels, section(view, labels)) for labels in view.labels]
    return [
        fold(f"With {view.label_name(labels)}", *content, open_=number == 0, class_="size")
        for number, (labels, content) in enumerate(part for part in parts if part[1])
    ]


def classes(view: View, labels: str) -> list[Markup]:
    """Per class, what each other arm gains over the base, the largest gain first."""
    figures: list[Markup] = []
    for kind in view.kinds:
        for arm in view.others:
            found = view.class_differences(labels, kind, arm, view.head)
            rows = sorted(found.items(), key=lambda item: -item[1]["mean"])
            if rows:
                title = f"{arm} against {view.base}, {view.class_score(kind)} on {view.head_name()}"
                figures.append(figure(title, charts.differences(rows, title, "points")))
    if not figures:
        return []
    note = "Of many intervals about one in twenty excludes zero by luck: trust a class only with others beside it."
    return [grid(figures), dim(note)]


def precision_recall(view: View, labels: str) -> list[Markup]:
    """Precision over recall at IoU 0.5: all classes together, the single ones folded."""
    whole, single = [], []
    together = apart(ALL, view.metrics["data"]["classes"])
    for kind in view.kinds:
        curves = {arm: about["curves"] for arm, about in view.errors(labels, kind).items() if about.get("curves")}
        names = list(dict.fromkeys(name for by_class in curves.values() for name in by_class))
        titles = {name: f"{'all classes' if name == together else name}, {view.kind_name(kind)}" for name in names}
        figures = {name: _precision_recall(view, curves, name, titles[name]) for name in names}
        if together in figures:
            whole.append(figures.pop(together))
        if figures:
            single.append(fold(f"Each class, {view.kind_name(kind)}", grid(figures.values())))
    return [arm_legend(view), grid(whole), *single] if whole or single else []


def _precision_recall(view: View, curves: dict[str, Any], name: str, title: str) -> Markup:
    series = []
    for arm, by_class in curves.items():
        curve = by_class.get(name) or {"recall": [], "precision": []}
        pairs = zip(curve["recall"], curve["precision"], strict=True)
        points = [Point(recall, precision) for recall, precision in pairs if precision is not None]
        series.append(Line(arm, view.hue(arm), points))
    chart = charts.lines(series, per_cent_axis("recall, per cent", 1), per_cent_axis("precision, per cent", 1), title)
    return figure(title, chart)


def errors(view: View, labels: str) -> list[Markup]:
    """What AP50 each sort of error costs, stacked per arm; the counts folded."""
    figures, tables = [], []
    for kind in view.kinds:
        found = {arm: about for arm, about in view.errors(labels, kind).items() if about.get("gain")}
        if not found:
            continue
        rows = [(arm, [about["gain"].get(name) or 0.0 for name in ERRORS]) for arm, about in found.items()]
        title = f"AP50 lost to each sort of error, {view.kind_name(kind)}"
        figures.append(figure(title, charts.stacked(rows, list(ERRORS), title, "points of AP50 gained if mended")))
        lines: list[list[Child]] = [
            [name, *(_count(about["counts"].get(name, 0)) for about in found.values())] for name in ERRORS
        ]
        tables.append(fold(f"How many errors, {view.kind_name(kind)}", table(["errors", *found], lines)))
    if not figures:
        return []
    names = [(name, number) for number, name in enumerate(ERRORS)]
    words = "; ".join(f"{name}: {what}" for name, what in ERRORS.items())
    note = (
        f"{words[0].upper()}{words[1:]}. Each part is what AP50 would gain if that error alone were mended (TIDE); the "
        f"parts need not add up. Counted are the errors of {BEST}."
    )
    return [charts.legend(names, "err"), grid(figures), dim(note), *tables]


def sizes(view: View, labels: str) -> list[Markup]:
    """Recall over object size and over clutter, with intervals."""
    figures = []
    for kind in view.kinds:
        for key, words in (
            ("size", "size: square root of the box's area, pixels"),
            ("clutter", "clutter: darkness around the box, 0 to 1"),
        ):
            found = {arm: about[key] for arm, about in view.errors(labels, kind).items() if about.get(key)}
            if found:
                title = f"Recall over {key}, {view.kind_name(kind)}"
                figures.append(figure(title, _bins(view, found, title, f"objects by {words}")))
    note = (
        f"Share of the objects that {BEST}, find at IoU 0.5, in bins of about as many objects each; error bars: "
        "95 % intervals of one bin by itself."
    )
    return [arm_legend(view), grid(figures), dim(note)] if figures else []


def _bins(view: View, found: dict[str, Any], title: str, text: str) -> Markup:
    first = next(iter(found.values()))
    ticks = [(float(at), f"{_brief(bin['low'])}–{_brief(bin['high'])}") for at, bin in enumerate(first)]
    series = []
    for arm, bins in found.items():
        points = [
            Point(at, bin["recall"], *(bin.get("interval") or (None, None)))
            for at, bin in enumerate(bins)
            if bin.get("recall") is not None
        ]
        series.append(Line(arm, view.hue(arm), points))
    x = Axis(text, -0.4, len(first) - 0.6, ticks=ticks)
    return charts.lines(series, x, per_cent_axis("recall, per cent", 1), title, marks=True)


def _count(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _brief(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def confusion(view: View, labels: str) -> list[Markup]:
    """One matrix per arm, of the first kind that has one."""
    for kind in view.kinds:
        found = {arm: about["confusion"] for arm, about in view.errors(labels, kind).items() if about.get("confusion")}
        if found:
            figures = [
                figure(
                    f"{arm}, {view.kind_name(kind)}",
                    charts.matrix(about["classes"], about["counts"], f"Confusion, {arm}"),
                )
                for arm, about in found.items()
            ]
            note = (
                "Rows: what is there; columns: what it was found as; per cent of the row. Last column: accounted for "
                "by none. Last row: detections that count for no object: too far off, found already or not there. "
                f"Of {BEST}."
            )
            return [grid(figures), dim(note)]
    return []


def numbers(view: View, labels: str) -> list[Markup]:
    """Every score of a label size: by kind and split the mean over the seeds, then the single seeds."""
    parts = []
    for kind in view.kinds:
        for split in view.splits:
            scores = {arm: _scores(view, labels, kind, split, arm) for arm in view.arms}
            scores = {arm: found for arm, found in scores.items() if found}
            if scores:
                title = f"{view.split_name(split)}, {view.kind_name(kind)}"
                parts.append(fold(title, _means(scores, "overall", "metric"), _means(scores, "per_class", "class")))
    return [*parts, fold(f"each seed, {view.head_name()}", _each_seed(view, labels))] if parts else []


def _scores(view: View, labels: str, kind: str, split: str, arm: str) -> list[dict[str, Any]]:
    found = (unit["scores"].get(kind, {}).get(split) for unit in view.units(labels, arm))
    return [scores for scores in found if scores]


def _means(scores: dict[str, list[dict[str, Any]]], part: str, what: str) -> Markup:
    names = list(dict.fromkeys(name for found in scores.values() for one in found for name in one[part]))
    rows: list[list[Child]] = []
    for name in names:
        cells: list[Child] = [name]
        for found in scores.values():
            values = [one[part][name] for one in found if one[part].get(name) is not None]
            cells.append(percent(sum(values) / len(values), 2) if values else DASH)
        rows.append(cells)
    return table([what, *scores], rows)


def _each_seed(view: View, labels: str) -> Markup:
    rows: list[list[Child]] = []
    for arm in view.arms:
        for unit in sorted(view.units(labels, arm), key=lambda unit: unit["seed"]):
            head = [(unit["scores"].get(kind, {}).get(view.head) or {}).get("overall", {}) for kind in view.kinds]
            cells = [percent(scores.get(view.metric(kind)), 2) for kind, scores in zip(view.kinds, head, strict=True)]
            rows.append([arm, str(unit["seed"]), *cells])
    return table(["arm", "seed", *(view.score_name(kind) for kind in view.kinds)], rows)
