"""From results to the tables of metrics.json: scores of each fine-tuning, comparisons and errors of the arms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from segloc_eval.config import RANDOM
from segloc_eval.numbers import score
from segloc_eval.numbers.compare import compare
from segloc_eval.numbers.errors import diagnose
from segloc_eval.numbers.matches import matches
from segloc_eval.numbers.score import Scores
from segloc_eval.numbers.semantic import confusions, score_semantic_splits
from segloc_eval.recipe import ResultKind
from segloc_eval.run.results import KINDS, ResultsBySplit, Truth, clutters, kinds_in


def score_splits(known: Truth, folder: Path, kind: ResultKind) -> dict[str, Scores]:
    """Scores of one fine-tuning by split and, where there are several, overall both ways: `mean` and `pooled`."""
    results = ResultsBySplit(folder, kind, known)
    if kind == "semantic":
        return score_semantic_splits({split: confusions(known.splits[split], results[split]) for split in results})
    return score.score_splits({split: matches(known.splits[split], results[split], kind) for split in results})


def summarise(known: Truth, folders: Mapping[tuple[str, str, int], Path]) -> dict[str, Any]:
    """`comparison` and `errors` of metrics.json, from the folders of the units (label set, arm, seed).

    Of the kinds that all units have. The base is `random` where it is among the arms of a label set, else the first.
    """
    comparison: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    found = {folder: kinds_in(folder, known) for folder in folders.values()}
    kinds = [kind for kind in KINDS if all(kind in there for there in found.values())]
    if not kinds:
        raise click.ClickException("the arms share no kind of result (boxes, masks, label maps); score them apart")
    measured = clutters(known)
    for labels in dict.fromkeys(labels for labels, _, _ in folders):
        arms = list(dict.fromkeys(arm for slug, arm, _ in folders if slug == labels))
        base = RANDOM if RANDOM in arms else arms[0]
        comparison[labels], errors[labels] = {}, {}
        for kind in kinds:
            results = {
                arm: {
                    seed: ResultsBySplit(folder, kind, known)
                    for (slug, name, seed), folder in folders.items()
                    if (slug, name) == (labels, arm)
                }
                for arm in arms
            }
            comparison[labels][kind] = compare(known.splits, results, kind, base)
            if kind != "semantic":
                errors[labels][kind] = {arm: diagnose(known.splits, results[arm], kind, measured) for arm in arms}
    return {"comparison": comparison, "errors": errors}
