"""Arms, label sets and seeds that join an evaluation of before in the same folder."""

from dataclasses import replace
from pathlib import Path

import click

from segloc_eval.config import Arm, Beside, Config, untaken
from segloc_eval.run.results import read_own
from segloc_synth.files import output_dir

TOLD = dict.fromkeys(("judge", "judged"), "scans of --judge-benign")  # what a message calls fields of Config


def accept_out(out: Path) -> None:
    """click.ClickException when `out` holds anything but an evaluation."""
    if out.exists() and not (out / "config.json").is_file():
        output_dir(out, "name another --out")


def joined(config: Config, out: Path) -> tuple[Config, Config]:
    """The configuration with the arms, label sets and seeds that were evaluated in `out` before, and it alone.

    They are units of their own, so more may join. An arm of before keeps its name, a new one gets another.
    click.ClickException unless `out` is new, empty, or of the same data, recipe and weights.
    """
    accept_out(out)
    if not (out / "config.json").is_file():
        return config, config
    before, now = read_own(out / "config.json", "name another --out"), config.as_dict()
    before = before if isinstance(before, dict) else {}
    fixed = [key for key in {**now, **before} if key not in ("arms", "labels", "seeds")]
    different = [key for key in fixed if before.get(key) != now.get(key)]
    if different:
        told = ", ".join(dict.fromkeys(TOLD.get(key, key) for key in different))
        raise click.ClickException(f"{out}: holds something else (other {told}); name another --out")
    try:
        arms = [Arm.from_dict(arm) for arm in before["arms"]]
        labels = tuple(dict.fromkeys([*map(str, before["labels"]), *config.labels]))
        seeds = max(int(before["seeds"]), config.seeds)
    except (KeyError, TypeError, ValueError):
        raise click.ClickException(f"{out / 'config.json'}: not as segloc-eval writes it; name another --out") from None
    known = list(arms)
    own: list[Arm] = []
    for arm in config.arms:
        same = [one for one in known if one.source == arm.source and _shown(one) == _shown(arm) and one not in own]
        earlier = same[0] if same else None
        if earlier is None:
            arms.append(arm := replace(arm, name=untaken(arm.name, {a.name for a in arms})))
        elif earlier.sha256 != arm.sha256:
            raise click.ClickException(
                f"{out}: its arm {earlier.name} is of other weights than {arm.source} holds now; name another --out"
            )
        elif earlier.beside != arm.beside:
            raise click.ClickException(
                f"{out}: its arm {earlier.name} learnt from other composites or benign scans than lie there now; "
                "name another --out"
            )
        else:
            arm = earlier
        own.append(arm)
    return replace(config, arms=tuple(arms), labels=labels, seeds=seeds), replace(config, arms=tuple(own))


def _shown(arm: Arm) -> Beside | None:
    """What an arm learns beside labelled scans, wherever that changed."""
    return replace(arm.beside, digest="") if arm.beside else None
