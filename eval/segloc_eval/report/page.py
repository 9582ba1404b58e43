"""The page: its order and its style."""

from pathlib import Path
from typing import Any

from segloc_eval.report import papers, record, sections, summary
from segloc_eval.report.alarms import alarms
from segloc_eval.report.markup import Markup, join, tag
from segloc_eval.report.scans import Pictures, scans
from segloc_eval.report.view import View
from segloc_synth.files import atomic_write

STYLE = (Path(__file__).parent / "style.css").read_text()


def write_report(metrics: dict[str, Any], folders: list[Path], out_file: Path, pictures: Pictures) -> Path:
    """Write the report of a metrics dict (format 2) to `out_file`, atomically; returns its path.

    `folders` hold ARM/LABELS/seed-S/ with log.jsonl and SPLIT/results.KIND.json, and truth/SPLIT.json; what is not
    there is said on the page. `pictures(split, image_id)` gives a scan as uint8 RGB [H, W, 3], or None.
    """
    page = render(View(metrics), folders, pictures)
    with atomic_write(out_file) as file:
        file.write(f"<!doctype html>\n{page}\n".encode(errors="replace"))
    return out_file


def render(view: View, folders: list[Path], pictures: Pictures) -> Markup:
    """The whole page, an html element; sections that have nothing to show are left out. Arguments as write_report's."""
    scores = sections.by_labels(view, summary.arm_table)
    titled = {
        "scores": (summary.table_title(view), [*scores, summary.units_note(view)]),
        "labels": ("What more labels change", summary.efficiency(view)),
        "classes": ("Differences per class", sections.by_labels(view, sections.classes)),
        "alarms": ("False alarms on benign scans", sections.by_labels(view, alarms)),
        "curves": ("Precision and recall at IoU 0.5", sections.by_labels(view, sections.precision_recall)),
        "scans": ("Scans where they differ most" if view.others else "What it finds", scans(view, folders, pictures)),
        "errors": ("Errors", sections.by_labels(view, sections.errors)),
        "sizes": ("Which objects are found", sections.by_labels(view, sections.sizes)),
        "confusion": ("Confusion of classes", sections.by_labels(view, sections.confusion)),
        "numbers": ("All numbers", sections.by_labels(view, sections.numbers)),
        "training": ("Fine-tuning and cost", record.training(view, folders)),
        "failed": ("Not finished", record.failures(view)),
        "data": ("Data", record.data(view)),
        "papers": ("What the papers report", [papers.quoted()]),
        "repeat": ("To repeat it", record.repeat(view)),
    }
    shown = {name: part for name, part in titled.items() if part[1]}
    body = [
        tag("header", *_verdict(view)),
        tag("nav", [tag("a", title, href=f"#{name}") for name, (title, _) in shown.items()]),
        *(tag("section", tag("h2", title), *content, id=name) for name, (title, content) in shown.items()),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"SegLoc evaluation: {', '.join(view.arms)}"),
        tag("style", Markup(STYLE)),
    ]
    return tag("html", tag("head", *head), tag("body", *body), lang="en")


def _verdict(view: View) -> list[Markup]:
    """What a reader with one minute sees."""
    first, *more = summary.headline(view)
    failed = len(view.metrics["failed"])
    warning = join(
        f"{failed} fine-tuning{'s' * (failed != 1)} did not finish and {'are' if failed != 1 else 'is'} missing here: ",
        tag("a", "which, and how to go on", href="#failed"),
    )
    return [
        tag("h1", _unbroken(first)),
        *(tag("p", _unbroken(sentence), class_="lead") for sentence in [*more, summary.certainty(view)]),
        tag("p", summary.setting(view)),
        *([tag("p", warning, class_="warning")] if failed else []),
        summary.arms_list(view),
        summary.glance(view),
    ]


def _unbroken(sentence: str) -> str:
    """No line ends between a number and its per cent sign."""
    return sentence.replace(" %", "\N{NO-BREAK SPACE}%")
