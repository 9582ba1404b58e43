"""Do composites and their rivals pay on real scans? Runs what has no record yet, keeps records, prints the table.

Setting R1: SEGLOC_SCANS/sixray_scans (5 classes, boxes), Faster R-CNN by the quick recipe at 160 px, from ImageNet's
weights where an arm does not say otherwise; benign scans of SEGLOC_SCANS/benign_sixray, two thirds to learn from, the
others to count false alarms on. Composites are made of the labelled share alone, by --masks-from-boxes. Lengths are
scans seen in forward and backward passes, composites included. `--on val` chooses, `--on test` reports.

Records lie in real_scans.jsonl, with commands and versions; what was stopped goes on.

  python benchmarks/real_scans.py plan
  python benchmarks/real_scans.py run --work /tmp/real
  python benchmarks/real_scans.py table
"""

import json
import os
import shlex
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import click

from segloc_eval.data.splits import label_slug
from segloc_synth.files import read_json

RECORDS = Path(__file__).with_suffix(".jsonl")
SIZE, LR = 160, "1e-3"
ENCODER = ("--arch", "tf_efficientnet_lite0", "--width", "64")
SECONDS_A_SCAN = 0.13  # of one slow core, only to foretell how long what is missing will take
RECALLS = (0.5, 0.7)


@dataclass(frozen=True)
class Arm:
    """What a detector starts from, what it sees, and for how many scans.

    `first`: composites that it learns before (segloc-eval pretrain); `build`: flags of the pairs that `first` and
    --mix take; `run`: flags of the fine-tuning, PAIRS and BENIGN standing for folders; `samples`: of the fine-tuning.
    """

    name: str
    samples: int = 12_000
    start: str = "imagenet"
    first: int = 0
    build: tuple[str, ...] = ()
    run: tuple[str, ...] = ()

    @property
    def on_pairs(self) -> bool:
        return bool(self.first) or "PAIRS" in self.run


SEVERAL = ("--items", "1", "3")
TRUSTING = (*SEVERAL, "--min-trust", "0.3")
ARMS = (
    Arm("imagenet, as long"),
    Arm("copy-paste", run=("--copy-paste",)),
    Arm("mix", build=SEVERAL, run=("--mix", "PAIRS")),
    Arm("mix, masks of little trust too", build=TRUSTING, run=("--mix", "PAIRS")),
    Arm("composites, then labels", 6000, first=6000, build=SEVERAL),
    Arm("copy-paste and mix", build=SEVERAL, run=("--copy-paste", "--mix", "PAIRS")),
    Arm("copy-paste and benign", run=("--copy-paste", "--benign", "BENIGN")),
    Arm("imagenet", 6000),
    Arm("random", 6000, "random"),
)


@dataclass(frozen=True)
class Unit:
    """One arm at one share of the labels with one seed, scored on the scans `on`."""

    arm: str
    share: str
    on: str
    seed: int


def missing(share: str, on: str, seeds: int, names: tuple[str, ...]) -> list[tuple[Unit, Arm]]:
    """What has no record, seed by seed."""
    known = {tuple(one[name] for name in Unit.__dataclass_fields__) for one in read()}
    wanted = [(Unit(arm.name, share, on, seed), arm) for seed in range(seeds) for arm in ARMS]
    return [
        (u, arm) for u, arm in wanted if tuple(asdict(u).values()) not in known and (not names or arm.name in names)
    ]


def read() -> list[dict[str, Any]]:
    """All records, oldest first."""
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


class Runner:
    """Does the commands of units below `work`, each once, on one core."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.scans = Path(os.environ.get("SEGLOC_SCANS", Path(__file__).resolve().parents[2] / "shared" / "data"))
        self.commands: list[str] = []

    def unit(self, unit: Unit, arm: Arm) -> dict[str, Any]:
        """The record of a unit, which is done for it."""
        self.commands = []
        data, slug = self.scans / "sixray_scans", label_slug(unit.share)
        base = self.work / f"{slug}-{unit.on}-{unit.seed}"
        base.mkdir(parents=True, exist_ok=True)
        on = ("--on", unit.on, "--seed", unit.seed)
        lists = base / "lists"
        cut = ("--benign", self.scans / "benign_sixray")
        self._call("segloc_eval", "labels", data, "--labels", unit.share, *on, *cut, "--out", lists)
        learn, judge = lists / "benign-learn.txt", lists / "benign-judge.txt"
        pairs = base / f"pairs{'-'.join(arm.build)}"
        if arm.on_pairs:
            sources = ("--objects", data, "--images", lists / f"labels-{slug}.txt", "--backgrounds", learn)
            more = ("--masks-from-boxes", "--size", SIZE, "--seed", unit.seed, "--workers", 1, *arm.build)
            self._call("segloc_synth", "build", *sources, *more, "--n", 3000, "--out", pairs)
        how = ("--detector", "faster-rcnn", "--size", SIZE, "--lr", LR, "--device", "cpu")
        ckpt: tuple[object, ...] = ("--ckpt", arm.start, *ENCODER)
        if arm.first:
            first = base / f"first-{arm.first}{'-'.join(arm.build)}"
            seen = ("--samples", arm.first, "--seed", unit.seed)
            self._call("segloc_eval", "pretrain", pairs, *ckpt, *how, *seen, "--out", first)
            ckpt = ("--ckpt", first)
        out = base / arm.name.replace(", ", "-").replace(" ", "-")
        places = {"PAIRS": pairs, "BENIGN": learn}
        more = (*(places.get(word, word) for word in arm.run), "--judge-benign", judge, "--seeds", 1)
        which = ("--data", data, "--labels", unit.share, *on, "--samples", arm.samples)
        self._call("segloc_eval", "run", *ckpt, *which, *how, *more, "--out", out)
        return self._record(unit, arm, slug, read_json(out / "metrics.json"))

    def _record(self, unit: Unit, arm: Arm, slug: str, told: dict[str, Any]) -> dict[str, Any]:
        (entry,) = told["units"]
        (alarms,) = told["alarms"][slug]["arms"].values()
        at = [told["alarms"][slug]["recalls"].index(recall) for recall in RECALLS]
        scores = {split: numbers["overall"] for split, numbers in entry["scores"]["bbox"].items()}
        ((_, overall),) = scores.items()
        return {
            **asdict(unit),
            **{"samples": arm.samples + arm.first, "ap": overall["AP"], "ap50": overall["AP50"]},
            "alarms": [alarms["alarms"][i] and round(alarms["alarms"][i]["mean"], 1) for i in at],
            **{"seconds": entry["training"]["seconds"], "commands": self.commands},
            **{name: told[name] for name in ("date", "versions", "hardware")},
            **{"fingerprint": told["data"]["fingerprint"], "commit": _commit()},
        }

    def _call(self, module: str, *flags: object) -> None:
        words = [str(flag) for flag in flags]
        text = shlex.join([module.replace("_", "-"), *words])
        self.commands.append(text.replace(str(self.work), "WORK").replace(str(self.scans), "SCANS"))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "SEGLOC_CACHE": str(self.work / "cache")}
        subprocess.run([sys.executable, "-m", module, *words], check=True, env=environment)


def _commit() -> str:
    told = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=False)
    return os.environ.get("SEGLOC_COMMIT", told.stdout.strip())


@click.group()
def main() -> None:
    """See the file's first lines."""


def options(command: Any) -> Any:
    """Which units are meant."""
    for option in (
        click.option("--arm", "names", multiple=True, help="These alone."),
        click.option("--seeds", default=1),
        click.option("--on", default="val", type=click.Choice(["val", "test"])),
        click.option("--labels", "share", default="10%"),
    ):
        command = option(command)
    return command


@main.command()
@options
def plan(share: str, on: str, seeds: int, names: tuple[str, ...]) -> None:
    """Say what is missing, and how long it takes."""
    total = 0.0
    for unit, arm in missing(share, on, seeds, names):
        hours = (arm.samples + arm.first) * SECONDS_A_SCAN / 3600
        total += hours
        click.echo(f"{unit.arm}, {unit.share}, {unit.on}, seed {unit.seed}: {hours:.1f} core hours")
    click.echo(f"{total:.1f} core hours in all")


@main.command()
@options
@click.option("--work", type=click.Path(path_type=Path), required=True, help="For all that is computed.")
def run(share: str, on: str, seeds: int, names: tuple[str, ...], work: Path) -> None:
    """Do what has no record yet, one unit after the other."""
    runner = Runner(work)
    for unit, arm in missing(share, on, seeds, names):
        record = runner.unit(unit, arm)
        with RECORDS.open("a") as file:
            file.write(json.dumps(record) + "\n")


@main.command()
def table() -> None:
    """Print the records in Markdown: means over the seeds."""
    found: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in read():
        found[one["on"], one["share"], one["arm"]].append(one)
    click.echo("| scored on | labels | arm | scans seen | seeds | box AP | AP50 | alarms at 50 % | at 70 % |")
    click.echo("|---" * 9 + "|")
    for (on, share, arm), members in sorted(
        found.items(), key=lambda item: (item[0][:2], -mean(m["ap"] for m in item[1]))
    ):
        numbers = [f"{100 * mean(m[name] for m in members):.1f}" for name in ("ap", "ap50")]
        alarms = [[m["alarms"][i] for m in members] for i in range(len(RECALLS))]
        told = ["not reached" if None in one else f"{mean(one):.0f}" for one in alarms]
        cells = [on, share, arm, f"{members[0]['samples']:,}", str(len(members)), *numbers, *told]
        click.echo(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
