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
        against = [f"against {found['base']}"] * bool(view.others)
        head += [f"false alarms {at}", *against, f"bags with any {at}", f"score from {at}"]
    rows = [[arm, *(cell for recall in SHOWN for cell in _cells(view, found, arm, recall))] for arm in arms]
    last = found["recalls"].index(SHOWN[-1])
    reached = [one["mean"] for entry in arms.values() for one in entry["alarms"][: last + 1] if one]
    top = 1.5 * max(reached, default=0.0) or 1.0  # an interval that goes on is cut there; the table has its end
    series = []
    for arm, entry in arms.items():
        points = [
            Point(recall, one["mean"], *((one["low"], min(one["high"], top)) if recall in SHOWN else ()))
            for recall, one in zip(found["recalls"], entry["alarms"], strict=True)
            if one and recall <= SHOWN[-1]  # beyond it few use a detector, and all else would lie on the axis
        ]
        series.append(Line(arm, view.hue(arm), points))
    x = Axis(
        "recall on the test scans", 0.0, SHOWN[-1] + 0.02, ticks=[(at / 10, f"{10 * at} %") for at in range(0, 8, 2)]
    )
    ticks = [(at, f"{at:g}") for at in charts.steps(0.0, top)]
    y = Axis("false alarms per 100 benign scans", 0.0, top, ticks=ticks)
    title = f"False alarms per 100 of {found['scans']:,} benign scans, over recall"
    note = (
        "At the highest score at which that share of the objects on the test scans is found (IoU 0.5, right class), "
        "every detection on a scan that holds nothing is a false alarm. Small, and bars: the 95 % interval. A curve "
        "ends where no score reaches more recall, and at 70 %."
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


def _cells(view: View, found: dict[str, Any], arm: str, recall: float) -> list[Child]:
    at, entry = found["recalls"].index(recall), found["arms"][arm]
    one, bags = entry["alarms"][at], entry["bags"][at]
    if one is None:
        return ["not reached", *[""] * (3 if view.others else 2)]
    against = "base" if arm == found["base"] else _against(entry["differences"][at])
    scores = [seed[at] for seed in entry["thresholds"] if seed[at] is not None]
    small = tag("small", f"{one['low']:.0f} to {one['high']:.0f}")
    return [
        [f"{one['mean']:.0f} ", small],
        *([against] if view.others else []),
        f"{percent(bags['mean'])} %",
        f"{sum(scores) / len(scores):.2f}",
    ]


def _against(difference: dict[str, Any] | None) -> Child:
    if difference is None:
        return ""
    small = tag("small", f"{difference['low']:+.0f} to {difference['high']:+.0f}")
    return [f"{difference['mean']:+.0f} ", small]
