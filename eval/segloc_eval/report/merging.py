"""Several evaluations in one report: which may stand side by side, and under which names.

Numbers of comparisons are not merged but must be computed anew from the results files, which `folder` of each unit
names. So the merged dict has no `comparison` and no `errors`; the caller adds them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from segloc_eval.config import unit_folder

Part = tuple[dict[str, Any], Path]  # a metrics dict and the folder that it was read from
SAME = {  # what must agree, and how a message calls it
    "format": lambda metrics: metrics["format"],
    "use of --eval-only": lambda metrics: bool(metrics["config"].get("given")),
    "data": lambda metrics: metrics["data"]["fingerprint"],
    "classes": lambda metrics: metrics["data"]["classes"],
    "detector": lambda metrics: metrics["config"].get("detector"),
    "recipe": lambda metrics: metrics["config"].get("recipe"),
    "scored split": lambda metrics: metrics["config"].get("on"),
    "scans of --judge-benign": lambda metrics: metrics["config"].get("judged", ""),
}
REPEATED = ("command", "date", "config", "versions", "hardware")  # what is needed to repeat an evaluation
LISTS = ("labels-*.txt", "val.txt")  # beside metrics.json: training scans of each label size, validation scans


def merge(parts: Sequence[Part]) -> dict[str, Any]:
    """One metrics dict of the units, arms, failures and problems of several; each unit gets its `folder`.

    Arms of one name but other weights become `name (folder)`. The same unit twice is kept once when its scores are
    equal. `parts` of the result says of each evaluation what is needed to repeat it.

    Raises click.ClickException, one line, for evaluations that must not be compared: other data, classes, detector,
    recipe, scored split or labelled scans, or two different results of one arm, label size and seed.
    """
    first, first_folder = parts[0]
    for metrics, folder in parts[1:]:
        for what, get in SAME.items():
            if get(metrics) != get(first):
                raise click.ClickException(
                    f"{folder}: other {what} than {first_folder}{_differences(get(metrics), get(first))}; "
                    "only evaluations alike can share a report"
                )
    _same_lists([folder for _, folder in parts])
    names = _names(parts)
    units: dict[tuple[str, str, int], dict[str, Any]] = {}
    for number, (metrics, folder) in enumerate(parts):
        for unit in metrics["units"]:
            inside = unit_folder(folder, unit["arm"], unit["labels"], unit["seed"])
            arm = names[number, unit["arm"]]
            key = arm, unit["labels"], unit["seed"]
            before = units.get(key)
            if before and before["scores"] != unit["scores"]:
                raise click.ClickException(
                    f"{folder}: {arm}, labels {unit['labels']}, seed {unit['seed']} has other scores than in "
                    f"{before['folder']}; leave one of the two out"
                )
            units.setdefault(key, {"folder": str(inside), **unit, "arm": arm})
    about = {name: metrics["arms"][arm] for (number, arm), name in names.items() for metrics in [parts[number][0]]}
    failed = [
        {"command": metrics["command"], **failure, "arm": names[number, failure["arm"]]}
        for number, (metrics, _) in enumerate(parts)
        for failure in metrics["failed"]
    ]
    done = {(failure["arm"], failure["labels"], failure["seed"]) for failure in failed} & set(units)
    problems = list(dict.fromkeys(line for metrics, _ in parts for line in metrics["data"]["problems"]))
    most = max((metrics["data"] for metrics, _ in parts), key=lambda data: int(data["scans"].get("train", 0)))
    labels = {slug: count for metrics, _ in parts for slug, count in metrics["data"]["labels"].items()}
    return {
        **{key: first[key] for key in ("format", *REPEATED)},
        "data": {**most, "labels": labels, "problems": problems},
        "arms": about,
        "units": list(units.values()),
        "failed": [one for one in failed if (one["arm"], one["labels"], one["seed"]) not in done],
        "parts": [
            part
            for metrics, folder in parts
            for part in metrics.get("parts") or [{"folder": str(folder), **{key: metrics[key] for key in REPEATED}}]
        ],
    }


def _differences(here: Any, there: Any) -> str:
    """` (size 96, there 64)` of two recipes or classes, "" of what is no dict."""
    if not (isinstance(here, dict) and isinstance(there, dict)):
        return ""
    keys = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    return f" ({', '.join(f'{key} {here.get(key)}, there {there.get(key)}' for key in keys)})"


def _names(parts: Sequence[Part]) -> dict[tuple[int, str], str]:
    """(part, arm there) -> arm in the report."""
    weights: dict[str, set[tuple[str, str | None]]] = {}
    for metrics, _ in parts:
        for arm, about in metrics["arms"].items():
            weights.setdefault(arm, set()).add((about["sha256"] or about["source"], about.get("beside")))
    folders = [folder.name for _, folder in parts]
    plain = len(set(folders)) == len(folders) and all(folders)
    return {
        (number, arm): f"{arm} ({folder.name if plain else folder})" if len(weights[arm]) > 1 else arm
        for number, (metrics, folder) in enumerate(parts)
        for arm in metrics["arms"]
    }


def _same_lists(folders: Sequence[Path]) -> None:
    """Equal label sizes must mean equal scans, in all folders that list them."""
    seen: dict[str, tuple[Path, str]] = {}
    for folder in folders:
        for path in sorted(path for pattern in LISTS for path in folder.glob(pattern)):
            text = path.read_text()
            other, before = seen.setdefault(path.name, (folder, text))
            if text != before:
                raise click.ClickException(
                    f"{path}: other scans than {other / path.name}; use one --seed for both, --seeds for more runs"
                )
