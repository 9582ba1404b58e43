"""Whether it paid: the headline, the differences at a glance, and the arm tables.

The one rule: only a difference whose interval excludes zero (`clear`) is called ahead or behind.
"""

from segloc_eval.numbers.compare import Difference
from segloc_eval.recipe import FAMILIES
from segloc_eval.report import charts
from segloc_eval.report.markup import (
    Child,
    Markup,
    difference_cell,
    digits_for,
    dim,
    direction,
    estimate_cell,
    join,
    percent,
    signed,
    span,
    table,
    tag,
)
from segloc_eval.report.view import DETECTORS, View

LITTLE = 0.02  # an AP below which detectors have hardly begun to learn
STARTS = {"random": "random weights, no pretraining", "imagenet": "weights trained on ImageNet with its labels"}


def headline(view: View) -> list[str]:
    """The first sentences: the first kind at the smallest label size and at the largest, then the other kinds."""
    if not view.labels:
        return ["No arm has been scored yet."]
    kinds, sizes = view.kinds, list(dict.fromkeys([view.labels[0], view.labels[-1]]))
    if not view.others:
        return [_alone(view, kind) for kind in kinds]
    first = [
        *unskilled(view),
        *(_sentence(view, labels, kinds[0], several=len(sizes) > 1) for labels in sizes),
    ]
    crowded = len(sizes) > 1 and len(view.others) > 1  # the chart below says it better
    return first if crowded else [*first, *(_brief(view, kind, sizes) for kind in kinds[1:])]


def _sentence(view: View, labels: str, kind: str, several: bool) -> str:
    """Every other arm against the base; one that is not clearly different is never said to be ahead or behind."""
    clauses = [_clause(view, labels, kind, view.others[0])] if len(view.others) == 1 else _groups(view, labels, kind)
    text = "; ".join(clauses) + "."
    if several:
        return f"With {view.label_name(labels)}, {text}"
    arm_first = text.startswith(view.others[0]) and len(view.others) == 1  # names keep their case
    return text if arm_first else text[0].upper() + text[1:]


def _clause(view: View, labels: str, kind: str, arm: str) -> str:
    base, score = view.base, view.score_name(kind)
    found = view.difference(labels, kind, arm, view.head)
    if found is None:
        return f"{arm} {_without(view, labels, kind, arm)}"
    digits = digits_for(found)
    if not found["clear"]:
        return (
            f"no clear difference between {arm} and {base}: {signed(found['mean'], digits)} points of {score} "
            f"(95 % interval {span(found['low'], found['high'], digits, sign=True)}{_few(found)})"
        )
    return f"{arm} is {'ahead of' if found['mean'] > 0 else 'behind'} {base} {_amount(found, f' points of {score}')}"


def _groups(view: View, labels: str, kind: str) -> list[str]:
    """The same of several arms, those ahead, behind and not clearly different together."""
    found = {arm: view.difference(labels, kind, arm, view.head) for arm in view.others}
    real = {arm: entry for arm, entry in found.items() if entry is not None}
    groups = {way: [arm for arm, entry in real.items() if direction(entry) == way] for way in ("up", "down", "even")}
    clauses, unit = [], f" points of {view.score_name(kind)}"  # the unit is said once
    base = view.base
    names = {"up": f"ahead of {base}", "down": f"behind {base}", "even": f"no clear difference from {base}"}
    for way, words in names.items():
        parts = []
        for arm in sorted(groups[way], key=lambda arm: -abs(real[arm]["mean"])):
            parts.append(f"{arm} {_amount(real[arm], unit, by=way != 'even')}")
            unit = ""
        if parts:
            clauses.append(f"{words}: {', '.join(parts)}")
    return clauses + [f"{arm} {_without(view, labels, kind, arm)}" for arm in found if arm not in real]


def _without(view: View, labels: str, kind: str, arm: str) -> str:
    """What is told of an arm that has no difference to the base."""
    own, score = view.estimate(labels, kind, arm, view.head), view.score_name(kind)
    return (
        f"reaches {percent(own['mean'])} {score}, with no {view.base} to compare it with" if own else f"has no {score}"
    )


def _amount(entry: Difference, unit: str, by: bool = True) -> str:
    """`by 4.2 points of box AP (95 % interval 2.1 to 6.3)`; the interval is called by name only with a unit."""
    digits, name = digits_for(entry), "95 % interval " if unit else ""
    if not by:
        interval = span(entry["low"], entry["high"], digits, sign=True)
        return f"{signed(entry['mean'], digits)}{unit} ({name}{interval}{_few(entry)})"
    low, high = sorted((abs(entry["low"]), abs(entry["high"])))
    return f"by {percent(abs(entry['mean']), digits)}{unit} ({name}{span(low, high, digits)})"


def _few(entry: Difference) -> str:
    """Why a difference is not clear although its interval excludes zero."""
    return ", on too few scans to tell" if not entry["clear"] and (entry["low"] > 0 or entry["high"] < 0) else ""


def _brief(view: View, kind: str, sizes: list[str]) -> str:
    """The differences of a further kind, in a line."""
    parts = []
    for labels in sizes:
        found = {arm: view.difference(labels, kind, arm, view.head) for arm in view.others}
        words = [f"{arm} {_signed(entry)}" for arm, entry in found.items() if entry is not None]
        if words:
            parts.append((f"with {view.label_name(labels)} " if len(sizes) > 1 else "") + ", ".join(words))
    name = view.score_name(kind)
    return f"{name[0].upper()}{name[1:]} against {view.base}: {'; '.join(parts) or 'nothing to compare'}."


def _signed(entry: Difference) -> str:
    digits = digits_for(entry)
    unclear = "" if entry["clear"] else _few(entry) or ", no clear difference"
    return f"{signed(entry['mean'], digits)} ({span(entry['low'], entry['high'], digits, sign=True)}{unclear})"


def _alone(view: View, kind: str) -> str:
    parts = []
    for labels in view.labels:
        found = view.estimate(labels, kind, view.base, view.head)
        if found is not None:
            interval = span(found["low"], found["high"])
            learnt = "" if labels == "given" else f" with {view.label_name(labels)}"
            parts.append(f"{percent(found['mean'])} {view.score_name(kind)} ({interval}){learnt}")
    reached = ", ".join(parts) or f"no {view.score_name(kind)}"
    return f"{view.base} reaches {reached}; there is no other arm to compare it with."


def unskilled(view: View) -> list[str]:
    """A warning where no arm finds anything to speak of, so that there is nothing to compare yet."""
    kind = view.kinds[0] if view.kinds else ""
    found = [view.estimate(labels, kind, arm, view.head) for labels in view.labels for arm in view.arms]
    best = max((estimate["mean"] for estimate in found if estimate), default=1.0)
    if kind == "semantic" or best >= LITTLE:
        return []
    return [
        f"Too early to tell which start is better: no detector finds much yet (best {view.score_name(kind)} on "
        f"{view.head_name()}: {percent(best)} %). Fine-tune longer (--samples) or on more labels."
    ]


def certainty(view: View) -> str:
    """What the intervals cover, and what they do not."""
    counts = view.seed_counts()
    scans = view.head_name()
    if counts == {1}:
        remedy = "" if view.metrics["config"].get("given") else "; --seeds 3 would tell"
        return (
            f"One seed{' per difference' * bool(view.others)}: the intervals cover the choice of {scans} only. How "
            f"much another seed would move these numbers is unknown, so a few points may still be luck{remedy}."
        )
    if 1 in counts:
        return (
            "The intervals of differences over one seed lack the spread over seeds; the others cover the choice of "
            "scans and of seed."
        )
    seeds = str(counts.pop()) if len(counts) == 1 else f"{min(counts)} to {max(counts)}" if counts else "no"
    what = "per difference" if view.others else "of the arm"
    return f"Intervals cover the choice of scans and the spread over {seeds} seeds {what}."


def setting(view: View) -> str:
    """What was done, for somebody who has never seen the project."""
    config, about = view.metrics["config"], view.metrics["data"]
    tested = ", ".join(f"{about['scans'].get(split, 0):,} {view.split_name(split)}" for split in view.tests)
    tested += "" if tested.endswith("scans") else " scans"
    if config.get("given"):
        return f"Nothing was trained here: what each arm found was scored as given, on the same {tested}."
    recipe = config.get("recipe") or {}
    flag = str(config.get("detector"))
    flag = FAMILIES[flag][0 if about["masks"] else 1] or flag if flag in FAMILIES else flag
    shape = [
        str(recipe[key]) if key == "arch" else f"{key} {recipe[key]}" for key in ("arch", "width") if key in recipe
    ]
    how = f", recipe “{recipe['name']}”" if "name" in recipe else ""
    unseen = " These were held out of training; the test scans were not touched." if view.tests == ["val"] else ""
    return (
        f"The same detector, {DETECTORS.get(flag, flag)}"
        + (f" on SDANet ({', '.join(shape)})" if shape else "")
        + f"{how}, was fine-tuned from each of these weights on the same labelled scans in the same order, and tested "
        f"on the same {tested}.{unseen}"
    )


def arms_list(view: View) -> Markup:
    """What each arm starts from."""
    items: list[Child] = []
    for arm in view.arms:
        about = view.metrics["arms"][arm]
        what = "weights of" if about["source"].endswith((".pth", ".pt", ".safetensors")) else "results in"
        words = about.get("about") or STARTS.get(about["source"]) or f"{what} {about['source']}"
        role = " (the base that the others are compared with)" if arm == view.base and view.others else ""
        mark = tag("i", class_=f"hue hue{view.hue(arm) % charts.HUES}")
        items.append([tag("dt", mark, arm), tag("dd", words, role)])
    return tag("dl", *items, class_="arms")


def glance(view: View) -> Markup:
    """All differences to the base on all test scans, a chart per kind."""
    figures = []
    for kind in view.kinds:
        rows: list[tuple[str, Difference | None]] = []
        for labels in view.labels:
            found = [(arm, view.difference(labels, kind, arm, view.head)) for arm in view.others]
            shown = [(arm, entry) for arm, entry in found if entry is not None]
            if shown and len(view.labels) > 1:
                rows.append((f"with {view.label_name(labels)}", None))
            rows += shown
        if rows:
            title = f"{view.score_name(kind)}: difference to {view.base}, with 95 % interval"
            figures.append(charts.figure(title, charts.differences(rows, title, f"points against {view.base}")))
    if not figures:
        return join()
    note = (
        f"On {view.head_name()}. Bars are differences, whiskers their 95 % intervals, dots single seeds: green and red "
        "only where the interval excludes zero; grey is no clear difference."
    )
    return join(charts.grid(figures), dim(note))


def arm_table(view: View, labels: str) -> list[Markup]:
    """Every arm and split, each score with its interval and its difference to the base."""
    head: list[Child] = ["arm"]
    for kind in view.kinds:
        head += [view.score_name(kind)] + [f"against {view.base}"] * bool(view.others)
    rows: list[list[Child]] = []
    for split in sorted(view.splits, key=lambda split: (split != view.head, split in view.tests)):
        if len(view.splits) > 1:
            rows.append([view.split_name(split)])
        for arm in view.arms:
            cells: list[Child] = [arm]
            for kind in view.kinds:
                cells.append(estimate_cell(view.estimate(labels, kind, arm, split)))
                if view.others:
                    found = view.difference(labels, kind, arm, split)
                    cells.append(tag("span", "base", class_="faint") if arm == view.base else difference_cell(found))
            rows.append(cells)
    return [table(head, rows, class_="scores")]


def table_title(view: View) -> str:
    return "Scores per test split" if len(view.splits) > 1 else f"Scores on {view.head_name()}"


def units_note(view: View) -> Markup:
    if view.kinds == ["semantic"]:
        return dim(
            "Per cent; small: the 95 % interval. mIoU: intersection over union, mean over classes and background."
        )
    return dim(
        "Per cent; small: the 95 % interval. AP is COCO's (IoU 0.50 to 0.95). –: no such object or no such score."
    )


def efficiency(view: View) -> list[Markup]:
    """Score over labelled scans, on a log axis; nothing with one label size."""
    sizes = [labels for labels in view.labels if view.scans(labels) > 0]
    if len(sizes) < 2:
        return []
    figures = []
    for kind in view.kinds:
        series = []
        for arm in view.arms:
            points = [
                charts.Point(view.scans(labels), entry["mean"], entry["low"], entry["high"])
                for labels in sizes
                if (entry := view.estimate(labels, kind, arm, view.head)) is not None
            ]
            series.append(charts.Line(arm, view.hue(arm), points))
        counts = [view.scans(labels) for labels in sizes]
        ticks = [(float(count), f"{count:,}") for count in counts]
        x = charts.Axis("labelled training scans (log scale)", counts[0] / 1.3, counts[-1] * 1.3, log=True, ticks=ticks)
        highest = max((point.high or point.y for line in series for point in line.points), default=0.0)
        y = charts.per_cent_axis(f"{view.score_name(kind)}, per cent", highest)
        chart = charts.lines(series, x, y, f"{view.score_name(kind)} over labelled scans", marks=True)
        figures.append(charts.figure(f"{view.score_name(kind)} on {view.head_name()}", chart))
    return [
        charts.arm_legend(view),
        charts.grid(figures),
        dim("Error bars: 95 % intervals of each arm by itself. Whether two arms differ, the differences above tell."),
    ]
