"""Several evaluations in one report: `segloc-eval report A B C`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from segloc_eval.config import BENIGN, TRUTH
from segloc_eval.report.merging import LISTS, merge
from segloc_eval.report.page import write_report
from segloc_eval.run.results import FORMAT, are_lost, pictures, read_own, read_truth
from segloc_eval.run.tables import summarise
from segloc_synth.files import output_dir, write_json


def report(folders: Sequence[Path], out: Path) -> Path:
    """Merge evaluations of the same data and recipe into `out`: metrics.json and report.html, whose path is returned.

    Results stay where they are; the new metrics.json says where. click.ClickException for folders without an
    evaluation, or that must not be compared.
    """
    parts = [(_read_metrics(folder), folder.resolve()) for folder in folders]
    metrics = merge(parts)
    first = parts[0][1]
    judged = {BENIGN} if metrics["config"].get("judged") else set()
    splits = sorted({file.stem for file in (first / TRUTH).glob("*.json")} - judged)
    if not splits:
        raise click.ClickException(f"{first / TRUTH}: is missing, and with it what is scored against; evaluate again")
    known = read_truth(first, splits)
    found = {(unit["labels"], unit["arm"], unit["seed"]): Path(unit["folder"]) for unit in metrics["units"]}
    for unit in metrics["units"]:
        if are_lost(unit["scores"], Path(unit["folder"]), known):
            raise click.ClickException(
                f"{unit['folder']}: its results files are gone; evaluate again, or bring them back"
            )
    benign = read_truth(first, [BENIGN]) if judged else None
    metrics |= summarise(known, found, benign)
    out = output_dir(out, "name another --out")
    shutil.copytree(first / TRUTH, out / TRUTH)
    for folder in folders:
        for file in (file for pattern in LISTS for file in folder.glob(pattern)):
            shutil.copyfile(file, out / file.name)
    write_json(out / "metrics.json", metrics)
    return write_report(metrics, [folder for _, folder in parts], out / "report.html", pictures(metrics, out))


def _read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics.json of a finished evaluation; click.ClickException for any other folder."""
    file = folder / "metrics.json"
    value = read_own(file, "evaluate again") if file.is_file() else None
    if not isinstance(value, dict) or not isinstance(value.get("units"), list) or not value["units"]:
        raise click.ClickException(f"{folder}: no finished evaluation; name a folder that segloc-eval wrote, or run it")
    if value.get("format") != FORMAT:
        raise click.ClickException(f"{file}: is of format {value.get('format')}, not {FORMAT}; evaluate again")
    if not {"arms", "config", "data", "failed", "versions", "hardware", "command", "date"} <= set(value):
        raise click.ClickException(f"{file}: not as segloc-eval writes it; evaluate again")
    return value
