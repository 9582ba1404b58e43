"""False alarms on benign scans: what each arm costs at the recall that is asked for."""

from typing import Any

from segloc_eval.numbers.compare import Estimate
from segloc_eval.report import charts
from segloc_eval.report.charts import Axis, Line, Point
from segloc_eval.report.markup import Child, Markup, dim, percent, table, tag
from segloc_eval.report.view import View

SHOWN = (0.5, 0.7)  # recalls in the table


def alarms(view: View, labels: str) -> list[Markup]:
    """A table at two recalls and the curve over all; nothing without benign scans."""
    found: dict[str, Any] = (view.metrics.get("alarms") or {}).get(labels) or {}
    arms = {arm: found["arms"][arm] for arm in view.arms if arm in found.get("arms", {})}
    if not arms:
        return []
    head: list[Child] = ["arm"]
    for recall in SHOWN:
        at = f"at {100 * recall:g} % recall"
        head += [f"false alarms {at}", f"against {found['base']}", f"bags with any {at}", f"score from {at}"]
    rows = [[arm, *(cell for recall in SHOWN for cell in _cells(found, arm, recall))] for arm in arms]
    series = []
    for arm, entry in arms.items():
        points = [
            Point(recall, one["mean"], *((one["low"], one["high"]) if recall in SHOWN else ()))
            for recall, one in zip(found["recalls"], entry["alarms"], strict=True)
            if one
        ]
        series.append(Line(arm, view.hue(arm), points))
    highest = max((point.y for line in series for point in line.points), default=1.0)
    x = Axis("recall on the test scans", 0.0, 1.0, ticks=[(at / 5, f"{20 * at} %") for at in range(6)])
    y = Axis("false alarms per 100 benign scans", 0.0, 1.1 * highest or 1.0)
    y = Axis(y.text, y.low, y.high, ticks=[(at, f"{at:g}") for at in charts.steps(0.0, y.high)])
    title = f"False alarms per 100 of {found['scans']:,} benign scans, over recall"
    note = (
        "At the highest score at which that share of the objects on the test scans is found (IoU 0.5, right class), "
        "every detection on a scan that holds nothing is a false alarm. Small, and bars: the 95 % interval. A curve "
        "ends where no score reaches more recall."
    )
    chart = charts.figure(title, charts.lines(series, x, y, title))
    return [table(head, rows, class_="scores"), charts.arm_legend(view), charts.grid([chart]), dim(note)]


def sentences(view: View, labels: str) -> list[str]:
    """The table in words, a sentence for each recall; none without benign scans."""
    found: dict[str, Any] = (view.metrics.get("alarms") or {}).get(labels) or {}
    told = []
    for recall in SHOWN if found else ():
        at = found["recalls"].index(recall)
        each = [(arm, found["arms"][arm]["alarms"][at]) for arm in view.arms if arm in found["arms"]]
        words = "; ".join(f"{arm} {_spelt(one)}" for arm, one in each)
        told.append(f"False alarms per 100 of {found['scans']:,} benign scans at {100 * recall:g} % recall: {words}.")
    return told


def _spelt(one: Estimate | None) -> str:
    return f"{one['mean']:.0f} ({one['low']:.0f} to {one['high']:.0f})" if one else "does not reach it"


def _cells(found: dict[str, Any], arm: str, recall: float) -> list[Child]:
    at, entry = found["recalls"].index(recall), found["arms"][arm]
    one, bags = entry["alarms"][at], entry["bags"][at]
    if one is None:
        return ["not reached", "", "", ""]
    difference = entry["differences"][at]
    scores = [seed[at] for seed in entry["thresholds"] if seed[at] is not None]
    small = tag("small", f"{one['low']:.0f} to {one['high']:.0f}")
    return [
        [f"{one['mean']:.0f} ", small],
        "base" if arm == found["base"] else _against(difference),
        f"{percent(bags['mean'])} %",
        f"{sum(scores) / len(scores):.2f}",
    ]


def _against(difference: dict[str, Any] | None) -> Child:
    if difference is None:
        return ""
    small = tag("small", f"{difference['low']:+.0f} to {difference['high']:+.0f}")
    return [f"{difference['mean']:+.0f} ", small]
