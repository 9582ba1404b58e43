"""What is wrong with a data set, told before anything is trained: one list; some problems stop, each has a remedy.

Ids count within their split only: PIDray numbers the scans of each of its files from 0, which is no fault.
"""

from collections.abc import Iterable

import click

from segloc_synth.sources import paths, problems
from segloc_synth.sources.problems import Problem

# Kinds that stop an evaluation, and their remedies.
UNREADABLE = "labels that cannot be read"
NO_CATEGORY = "no usable category"
NOTHING = "no usable object"
OTHER_CATEGORIES = "its categories are not those of the other splits"
NO_TRAINING = "no training split"
NO_SCAN = "no usable training scan"
NO_OBJECT = "no usable object to score on"
NO_VAL = "no scan left to validate on"
FATAL = {
    UNREADABLE: "mend that, or write the file anew",
    NOTHING: "mend the problems of its records",
    NO_CATEGORY: "list the categories, each with a number as id and a name",
    OTHER_CATEGORIES: "give all splits the same ids and names",
    NO_TRAINING: "add its labels, or score only, with --eval-only",
    NO_SCAN: "mend the problems of the training split",
    NO_OBJECT: "mend the problems of that split",
    NO_VAL: "label at least ten training scans, or score on the test splits",
}
# Kinds of problems with single records; those that are not here need their record mended.
LEAK_SAME = "scan to learn from with the very pixels of a scan to score on"
LEAK_NEAR = "scan to learn from that is near-identical to a scan to score on"
REMEDIES = {
    problems.MISSING: "copy the picture into the data set, or take its entry out",
    problems.TWICE: "nothing, unless other tools read the file",
    problems.EMPTY_CLASS: "expect no score for it there",
    paths.UNREADABLE: "give its reader the permission",
    problems.DIFFICULT: "nothing, if the mark is meant",
    problems.FEW_MASKS: "nothing; data with masks need one for each object",
    problems.UNLABELLED: "nothing, if they hold no object",
    problems.UNLISTED: "add its label file, an empty one if there is no object",
    problems.SHORT: "label more scans, or ask for fewer",
    **dict.fromkeys((LEAK_SAME, LEAK_NEAR), "nothing: it is left out, so that no score is flattered"),
    paths.OUTSIDE: "give the path below the folder of the pictures",
    **dict.fromkeys(problems.USABLE - {problems.TWICE}, "nothing, if the conversion is right"),
}
MEND = "mend the record; until then it is left out"


def remedy(kind: str) -> str:
    """What to do about a kind of problem."""
    return FATAL.get(kind) or REMEDIES.get(kind, MEND)


def describe(found: Iterable[Problem]) -> list[str]:
    """One line per kind, the commonest first: how many, what became of them, the first few records, what to do."""
    return [f"{problems.describe(group)[0]}; {remedy(kind)}" for kind, group in problems.by_kind(found).items()]


def as_dicts(found: Iterable[Problem]) -> list[dict[str, str]]:
    """The problems as written to problems.json: kind, file, record, fate (fatal, skipped, used, noted) and remedy."""
    fates = ((problem, "fatal" if problem.kind in FATAL else problems.fate(problem.kind)) for problem in found)
    return [{**problem.as_dict(), "fate": fate, "remedy": remedy(problem.kind)} for problem, fate in fates]


def stop(found: Iterable[Problem], source: str, strict: bool = False) -> None:
    """click.ClickException that tells every fatal problem, a line each with its remedy, if there is any.

    `strict`: every problem by which a record is lost is fatal.
    """
    found = list(found)
    bad = [problem for problem in found if problem.kind in FATAL]
    lines = [f"{problem.file}: {_kind(problem)}; {remedy(problem.kind)}" for problem in bad]
    if not bad and strict and (lost := problems.faults(found)):
        lines = [*describe(lost), "leave out --strict to go on without these records"]
    if len(lines) == 1:
        raise click.ClickException(f"{source}: {lines[0]}")
    if lines:
        raise click.ClickException("\n  ".join([f"{source}:", *lines]))


def _kind(problem: Problem) -> str:
    return f"{problem.kind} ({problem.record})" if problem.record else problem.kind
