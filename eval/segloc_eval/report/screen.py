"""The answer on the screen: the report's first sentences and a table of arms and splits."""

from statistics import mean
from typing import IO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segloc_eval.numbers.compare import Estimate
from segloc_eval.report import alarms, summary
from segloc_eval.report.markup import DASH, percent, span
from segloc_eval.report.view import View

RECALL = "AR@100"
SHORT = {"pooled": "all pooled", "mean": "mean of splits"}
PLAIN_WIDTH = 160  # columns, where no terminal tells its own


def show(view: View, file: IO[str]) -> None:
    """Print to `file`: in colours and as wide as it is on a terminal, else plain text. Scores in per cent."""
    console = Console(file=file, highlight=False, width=None if file.isatty() else PLAIN_WIDTH)
    for number, sentence in enumerate(summary.headline(view)):
        console.print(sentence, style="bold" if number == 0 else "", markup=False, soft_wrap=True)
    for labels in view.labels:
        for kind in view.kinds:
            given = "" if labels == "given" else f" with {view.label_name(labels)}"
            console.print(f"\n{view.score_name(kind)}{given}, per cent (95 % interval)", style="italic", markup=False)
            console.print(_table(view, labels, kind))
    for labels in view.labels:
        for line in alarms.sentences(view, labels):
            console.print(f"\n{line}", markup=False, soft_wrap=True)
    console.print(f"\n{summary.certainty(view)}", style="dim", markup=False, soft_wrap=True)


def _table(view: View, labels: str, kind: str) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("arm")
    splits = sorted(view.splits, key=lambda split: split != view.head)
    more = () if kind == "semantic" else ("AP50", RECALL)
    for name in (*(SHORT.get(split, split) for split in splits), *more):
        table.add_column(Text(name), justify="right", no_wrap=True)
    for arm in view.arms:
        cells = [_cell(view.estimate(labels, kind, arm, split)) for split in splits]
        if more:
            one = view.estimate(labels, kind, arm, view.head, more[0])
            cells += [percent(one["mean"] if one else None), percent(_recall(view, labels, kind, arm))]
        table.add_row(Text(arm), *cells)
    return table


def _cell(one: Estimate | None) -> str:
    return DASH if one is None else f"{percent(one['mean'])} ({span(one['low'], one['high'])})"


def _recall(view: View, labels: str, kind: str, arm: str) -> float | None:
    """Mean over the seeds."""
    values = [unit["scores"][kind][view.head]["overall"][RECALL] for unit in view.units(labels, arm)]
    return mean(values) if values and None not in values else None
