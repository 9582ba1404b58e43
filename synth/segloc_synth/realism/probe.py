"""How well a linear model tells composites from real scans: out-of-fold AUC, with intervals over bags."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segloc_synth.realism.crops import Trial, trials
from segloc_synth.realism.features import FAMILIES, describe
from segloc_synth.realism.matching import FOLDS

DRAWS = 2000  # bootstrap samples
MANY = 60  # bags below which figures are doubtful
CLIP = 4.0  # standard deviations at which features are cut off

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """An AUC with the bounds of its 95 % interval; numbers of crops on each side, and of groups (bags) among them."""

    auc: float
    low: float
    high: float
    ones: int
    others: int
    bags: int


def probe(folder: Path, real: Path | None, limit: int, seed: int = 0) -> dict[str, dict[str, Verdict]]:
    """For each question of `trials`: the verdict on all features ("all") and on each family alone."""
    return {trial.name: linear(trial) for trial in trials(folder, real, limit, seed)}


def linear(trial: Trial) -> dict[str, Verdict]:
    """Verdicts on a trial by the features it uses: "all", then each family of FAMILIES."""
    vectors = [describe(crop) for crop in [*trial.ones, *trial.others]]
    parts = {family: np.stack([vector[family] for vector in vectors]) for family in FAMILIES}
    tables = {"all": np.hstack(list(parts.values())), **parts}
    return {name: judge(out_of_fold(table, trial), trial) for name, table in tables.items()}


def out_of_fold(table: Floats, trial: Trial) -> Floats:
    """Scores [N] of features [N, D], each by a ridge regression that saw no crop of its fold."""
    scores = np.empty(len(table))
    for number in range(FOLDS):
        test = trial.folds == number
        train = table[~test]
        # Features without a value are given the mean; a few wild ones must not decide.
        known = ~np.isnan(train)
        count = np.maximum(known.sum(0), 1)
        middle = np.where(known, train, 0).sum(0) / count
        spread = np.sqrt((np.where(known, train - middle, 0) ** 2).sum(0) / count) + 1e-9
        normed = np.nan_to_num(np.clip((table - middle) / spread, -CLIP, CLIP))
        target = 2.0 * trial.labels[~test] - 1
        if trial.paired:
            half = len(target) // 2
            weights = ridge(normed[~test][:half] - normed[~test][half:], np.ones(half))
        else:
            weights = ridge(normed[~test] - normed[~test].mean(0), target - target.mean())
        scores[test] = normed[test] @ weights
    return scores


def ridge(table: Floats, target: Floats) -> Floats:
    """Weights [D] of a ridge regression without intercept, the penalty chosen by the closed leave-one-out error."""
    left, values, right = np.linalg.svd(table, full_matrices=False)
    along = left.T @ target
    errors, weights = [], []
    for penalty in len(table) * np.logspace(-4, 1, 11):
        shrink = values**2 / (values**2 + penalty)
        error = (target - left @ (shrink * along)) / (1 - (left**2) @ shrink)
        errors.append(float((error**2).mean()))
        weights.append(right.T @ (shrink * along / np.maximum(values, 1e-12)))
    return weights[int(np.argmin(errors))]


def judge(scores: Floats, trial: Trial) -> Verdict:
    """AUC of out-of-fold scores, crops compared within a fold (within a picture, if the trial is paired).

    Each fold's interval is the percentile bootstrap's, whole groups (bags) drawn with replacement. Folds are not
    independent: the crops that one is tested on train the others' models, and near 0.5 the errors agree. The verdict's
    interval is therefore the mean of the folds' intervals and does not shrink with their number.
    """
    rng = np.random.default_rng(0)
    ones, others = len(trial.ones), len(trial.others)
    rows = []
    for number in range(FOLDS):
        test = np.flatnonzero(trial.folds == number)
        names, place = np.unique(trial.groups[test], return_inverse=True)
        draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
        if trial.paired:
            half = test[test < ones]
            wins = 0.5 + 0.5 * np.sign(scores[half] - scores[half + ones])
            weights = draws[:, place[: len(half)]]
            value, drawn = wins.mean(), weights @ wins / weights.sum(1)
        else:
            value = auc(scores[test], trial.labels[test])
            drawn = np.array([auc(scores[test], trial.labels[test], draw[place]) for draw in draws])
        rows.append([value, *np.quantile(drawn, [0.025, 0.975])])
    value, low, high = np.mean(rows, axis=0)
    return Verdict(float(value), float(low), float(high), ones, others, len(np.unique(trial.groups)))


def auc(scores: Floats, labels: NDArray[Any], weights: NDArray[Any] | None = None) -> float:
    """Probability that a 1 scores above a 0, ties half; entries count `weights` times. 0.5 if there is no pair."""
    order = np.argsort(scores, kind="stable")
    weights = np.ones(len(order)) if weights is None else weights[order].astype(float)
    ones, zeros = weights * labels[order], weights * (1 - labels[order])
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))  # of equal scores
    ones, zeros = np.add.reduceat(ones, starts), np.add.reduceat(zeros, starts)
    pairs = ones.sum() * zeros.sum()
    return float(ones @ (np.cumsum(zeros) - zeros / 2) / pairs) if pairs else 0.5


def table(results: dict[str, dict[str, Verdict]]) -> Iterable[str]:
    """The results as lines of text."""
    width = max(map(len, results)) + 2
    yield f"{'AUC (0.5 is perfect)':<{width}}{'crops':>6}{'bags':>6}  {'all (95 % interval)':<22}" + "".join(
        f"{family:>8}" for family in FAMILIES
    )
    fewest = MANY
    for name, verdicts in results.items():
        whole = verdicts["all"]
        figure = f"{whole.auc:.3f} ({whole.low:.3f}-{whole.high:.3f})"
        parts = "".join(f"{verdicts[family].auc:8.3f}" for family in FAMILIES)
        fewest = min(fewest, whole.bags)
        yield f"{name:<{width}}{min(whole.ones, whole.others):>6}{whole.bags:>6}  {figure:<22}{parts}"
    if fewest < MANY:
        yield f"Only {fewest} bags: what tells these bags apart may pass for what tells real from composite."


def as_dict(results: dict[str, dict[str, Verdict]]) -> dict[str, dict[str, dict[str, float]]]:
    """The results for json."""
    return {name: {part: asdict(verdict) for part, verdict in of.items()} for name, of in results.items()}
