"""Tables out of the records: means over the seeds, differences paired within seeds, with 95 % intervals.

A seed redraws scans, labels, pairs, start weights and order, so the spread over seeds holds every source of chance,
and an interval is Student's: mean +- t(0.975, S - 1) s / sqrt(S). One seed has none.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from benchmarks.transfer.arms import BUILD_COST, FIXED_COST, PAIR_COST, SCAN_COST, Experiment, Profile
from benchmarks.transfer.records import processor
from benchmarks.transfer.stages import Unit

from segloc_eval.numbers.compare import student

LEVELS = ("easy", "hard", "hidden")
DETECTOR = ("fine-tuning", "scoring")  # stages of a unit's cost


class Estimate(NamedTuple):
    """Mean over `seeds` seeds and the half-width of its 95 % interval, None for one seed."""

    mean: float
    half: float | None
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """At least one value."""
        count = len(values)
        if count == 1:
            return cls(values[0], None, 1)
        return cls(fmean(values), student(count - 1) * stdev(values) / math.sqrt(count), count)

    @property
    def clear(self) -> bool:
        """Does the interval leave out zero?"""
        return self.half is not None and abs(self.mean) > self.half

    def text(self, signed: bool = False) -> str:
        """Such as "+3.1 ± 0.8"."""
        mean = f"{self.mean:+.1f}" if signed else f"{self.mean:.1f}"
        return mean if self.half is None else f"{mean} ± {self.half:.1f}"


Score = Callable[[dict[str, Any]], float | None]


def score(kind: str, split: str, name: str = "AP") -> Score:
    """Reads a score, in per cent, from a record; `split` all: the mean of the splits it has."""

    def read(record: dict[str, Any]) -> float | None:
        splits = record["scores"].get(kind, {})
        names = list(splits) if split == "all" else [split]
        values = [splits.get(s, {}).get(name) for s in names]
        return None if not values or None in values else 100 * fmean(values)

    return read


def by_seed(records: Iterable[dict[str, Any]], experiment: str, arm: str, share: str, read: Score) -> dict[int, float]:
    """Score of each seed that has a record; of several records of a unit the last counts."""
    found = {}
    for record in records:
        if (record["experiment"], record["arm"], record["share"]) == (experiment, arm, share):
            value = read(record)
            if value is not None:
                found[record["seed"]] = value
    return found


def difference(ours: dict[int, float], theirs: dict[int, float]) -> Estimate | None:
    """Ours minus theirs over the seeds that both have."""
    common = sorted(ours.keys() & theirs.keys())
    return Estimate.of([ours[seed] - theirs[seed] for seed in common]) if common else None


class Column(NamedTuple):
    """A number of each record; `ahead`: the difference to the base is told too."""

    name: str
    read: Score
    ahead: bool = False


def columns(experiment: Experiment, gpu: bool = False) -> list[Column]:
    """What an experiment's table tells; minutes are those of learning and scoring, without data and the k-NN probe."""
    scans = Column("k-NN on scans", on_scans, experiment.probe)
    pairs = (Column("k-NN on pairs", last("knn_accuracy")), Column("found again", last("held_out_accuracy")))
    name, unit = ("min", "seconds") if gpu else ("CPU min", "cpu_seconds")
    time = Column(name, spent(unit, "pretraining", *DETECTOR))
    if experiment.probe:
        return [scans, *pairs, time]
    return [
        *(Column("box AP", score("bbox", "all"), True), Column("mask AP", score("segm", "all"))),
        *(Column(split, score("bbox", split)) for split in LEVELS),
        Column("AR@10", score("bbox", "all", "AR@10")),
        *((scans,) if not experiment.real else ()),
        *((*pairs, Column("paste AUC", paste_auc)) if experiment.look_at_pairs else ()),
        time,
    ]


def costs(gpu: bool) -> list[Column]:
    """Minutes of the processor or, on a GPU, of the clock, and the most memory that a process held.

    What a detector learns of composites counts to the detector.
    """
    unit = "seconds" if gpu else "cpu_seconds"
    stages = {"synthesis": ("synthesis", "export"), "pretraining": ("pretraining",), "detector": DETECTOR}
    return [
        *(Column(f"{name}, min", spent(unit, *of)) for name, of in stages.items()),
        Column("largest process, GiB", peak),
    ]


def table(records: Sequence[dict[str, Any]], experiment: Experiment, shown: Sequence[Column]) -> str:
    """Markdown: an arm a row at each share of the labels, without columns that no record fills.

    A star marks differences whose interval leaves out zero.
    """
    own = [record for record in records if record["experiment"] == experiment.name]
    shown = [column for column in shown if any(column.read(record) is not None for record in own)]
    head = ["arm", "seeds", *(name for c in shown for name in (c.name, *[f"against {experiment.base}"] * c.ahead))]
    lines = []
    for share in experiment.shares:
        rows = [row for arm in experiment.arms if (row := _row(records, experiment, arm.name, share, shown))]
        if rows:
            lines += [f"**{share} of the labels**", "", _line(head), _line(["---"] * len(head)), *map(_line, rows), ""]
    return "\n".join(lines) or "no records yet"


def _row(
    records: Sequence[dict[str, Any]], experiment: Experiment, arm: str, share: str, shown: Sequence[Column]
) -> list[str]:
    """Cells of an arm's row, none where it has no record."""
    cells: list[str] = []
    for column in shown:
        values = by_seed(records, experiment.name, arm, share, column.read)
        cells.append(Estimate.of([*values.values()]).text() if values else "")
        if column.ahead:
            ahead = difference(values, by_seed(records, experiment.name, experiment.base, share, column.read))
            told = ahead is not None and arm != experiment.base
            cells.append(ahead.text(signed=True) + " *" * ahead.clear if ahead is not None and told else "")
    seeds = by_seed(records, experiment.name, arm, share, lambda _: 1.0)
    return [arm, str(len(seeds)), *cells] if seeds else []


def last(name: str) -> Score:
    """Reads the last value of a curve of pretraining, in per cent."""

    def read(record: dict[str, Any]) -> float | None:
        curve = record["pretraining"].get(name)
        return 100 * curve[-1] if curve else None

    return read


def on_scans(record: dict[str, Any]) -> float | None:
    """Reads the k-NN accuracy on objects of the test scans, in per cent: the mean of the splits."""
    splits = record["pretraining"].get("scan_knn")
    return 100 * fmean(splits.values()) if splits else None


def paste_auc(record: dict[str, Any]) -> float | None:
    """Reads how often a classifier tells where the object was pasted, in per cent: 50 is by chance."""
    found = record["pretraining"].get("paste_auc")
    return None if found is None else 100 * found


def spent(unit: str, *stages: str) -> Score:
    """Reads minutes out of these stages' `cpu_seconds` or `seconds`; None where one is not known."""

    def read(record: dict[str, Any]) -> float | None:
        values = [record["cost"][stage][unit] for stage in stages if stage in record["cost"]]
        return None if None in values else sum(values) / 60

    return read


def peak(record: dict[str, Any]) -> float | None:
    """Reads the most memory that a program of the unit held, in GiB."""
    held: float = max(stage["peak_bytes"] for stage in record["cost"].values())
    return held / 2**30


def processor_hours(records: Iterable[dict[str, Any]]) -> float:
    """Processor hours of units. Unknown times count as none, shared stages once a unit, simulated scans not."""
    costs = [cost for record in records for stage, cost in record["cost"].items() if stage != "simulate"]
    return sum(cost["cpu_seconds"] or 0.0 for cost in costs) / 3600


def foretold(records: Sequence[dict[str, Any]], unit: Unit, profile: Profile) -> float:
    """Processor seconds of a unit: as the same arm took on this processor, else by what its samples usually cost."""
    same = [r for r in records if (r["experiment"], r["arm"]) == unit.key[:2] and r.get("processor") == processor()]
    parts = [[stage["cpu_seconds"] for stage in record["cost"].values()] for record in same]
    if known := [sum(cost) for cost in parts if None not in cost]:
        return fmean(known)
    arm = unit.arm
    pairs, scans = arm.pairs or profile.pairs, profile.samples * arm.length
    total = FIXED_COST + (0 if unit.experiment.probe else scans * SCAN_COST)
    if arm.start.startswith("pretrained"):
        total += pairs * unit.experiment.passes(arm, profile) * PAIR_COST
    if arm.start.endswith(("composites", "backbone")):
        total += profile.composites * unit.experiment.passes(arm, profile) / profile.epochs * SCAN_COST
    return total + (pairs * BUILD_COST if arm.on_pairs else 0)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
