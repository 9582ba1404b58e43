"""From results to the tables of metrics.json: scores of each fine-tuning, comparisons and errors of the arms."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from segloc_eval.config import BENIGN, RANDOM
from segloc_eval.numbers import score
from segloc_eval.numbers.alarms import Sampled, combine, sample_alarms
from segloc_eval.numbers.compare import compare
from segloc_eval.numbers.errors import diagnose
from segloc_eval.numbers.matches import matches
from segloc_eval.numbers.score import Scores
from segloc_eval.numbers.semantic import confusions, score_semantic_splits
from segloc_eval.recipe import ResultKind
from segloc_eval.run.results import KINDS, ResultsBySplit, Truth, clutters, kinds_in, read_results, results_file


def score_splits(known: Truth, folder: Path, kind: ResultKind) -> dict[str, Scores]:
    """Scores of one fine-tuning by split and, where there are several, overall both ways: `mean` and `pooled`."""
    results = ResultsBySplit(folder, kind, known)
    if kind == "semantic":
        return score_semantic_splits({split: confusions(known.splits[split], results[split]) for split in results})
    return score.score_splits({split: matches(known.splits[split], results[split], kind) for split in results})


def summarise(
    known: Truth, folders: Mapping[tuple[str, str, int], Path], benign: Truth | None = None
) -> dict[str, Any]:
    """`comparison`, `errors` and `alarms` of metrics.json, from the folders of the units (label set, arm, seed).

    Of the kinds that all units have. The base is `random` where it is among the arms of a label set, else the first.
    False alarms are counted by boxes, where there are `benign` scans and what was found in them.
    """
    alarms: dict[str, Any] = {}
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
            if kind == "bbox" and benign:
                units = {
                    arm: {
                        seed: _alarms(known, one, benign)
                        for seed, one in results[arm].items()
                        if results_file(one.folder, BENIGN, kind).is_file()  # not of results that somebody gave
                    }
                    for arm in arms
                }
                alarms[labels] = combine(
                    {arm: seeds for arm, seeds in units.items() if seeds}, base, len(benign.numbers[BENIGN])
                )
            if kind != "semantic":
                errors[labels][kind] = {arm: diagnose(known.splits, results[arm], kind, measured) for arm in arms}
    return {"comparison": comparison, "errors": errors, **({"alarms": alarms} if alarms else {})}


def _alarms(known: Truth, results: ResultsBySplit, benign: Truth) -> Sampled:
    tables = [matches(known.splits[split], results[split], "bbox") for split in known.splits]
    found = read_results(results_file(results.folder, BENIGN, "bbox"), BENIGN, benign)
    bag = np.array([result["image_id"] - 1 for result in found], np.int64)
    score = np.array([result["score"] for result in found], np.float64)
    return sample_alarms(tables, bag, score, len(benign.numbers[BENIGN]))
