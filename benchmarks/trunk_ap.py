"""What do trunks detect with few labels, on validation scans? Runs what is missing, keeps records, prints the table.

Each unit is one fine-tuning with 10 % of the labels by the quick recipe, but for what its record names: on PhantomRay
(seed 1001, 4,700 scans, Mask R-CNN) or on SEGLOC_SCANS/sixray_scans (boxes alone, Faster R-CNN). Scores are those of
validation scans, which are held out of the training split. Records lie in trunk_ap.jsonl, with command and versions; a
stopped unit goes on. Which units the table has, `units` says; others, such as those that chose a learning rate, are
shown below it.

  python benchmarks/trunk_ap.py run --work /tmp/trunk_ap
  python benchmarks/trunk_ap.py table
"""

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from segloc_synth.files import read_json

RECORDS = Path(__file__).with_suffix(".jsonl")
PHANTOM, SCANS = "1001", "4700"
R18, LITE0, ATTO, TINY = "resnet18", "tf_efficientnet_lite0", "convnext_atto", "vit_tiny_patch16_224"
SIZES = {"phantom": 128, "sixray": 160}
FAMILY = {"phantom": "mask-rcnn", "sixray": "faster-rcnn"}
SAMPLES = 6000  # scans seen


@dataclass(frozen=True)
class Unit:
    """One fine-tuning: `data` is a key of SIZES, `start` random or imagenet; width 64."""

    data: str
    arch: str
    start: str
    lr: float
    seed: int
    size: int
    samples: int = SAMPLES


def units() -> list[Unit]:
    """Those of the table."""
    arms = [(R18, "random", 1), (LITE0, "imagenet", 3), (LITE0, "random", 3), (ATTO, "random", 1), (TINY, "random", 1)]
    return [
        Unit(data, arch, start, 1e-3, seed, size)
        for seed in range(3)
        for arch, start, seeds in arms
        if seed < seeds
        for data, size in SIZES.items()
    ]


def record(unit: Unit, folder: Path, *roots: Path) -> dict[str, Any]:
    """What is kept of a finished evaluation; its command without the folders `roots`, which differ by machine."""
    told = read_json(folder / "metrics.json")
    for root in roots:
        told["command"] = told["command"].replace(f"{root}/", "")
    (entry,) = told["units"]
    scores = entry["scores"]["bbox"]["val"]["overall"]
    return {
        **asdict(unit),
        **{"ap": scores["AP"], "ap50": scores["AP50"], "seconds": entry["training"]["seconds"]},
        **{name: told[name] for name in ("command", "date", "versions", "hardware")},
        "fingerprint": told["data"]["fingerprint"],
    }


def read() -> list[dict[str, Any]]:
    """All records, oldest first."""
    return [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []


def unit_of(record: dict[str, Any]) -> Unit:
    """Whose record it is."""
    return Unit(**{name: record[name] for name in Unit.__dataclass_fields__})


@click.group()
def main() -> None:
    """See the file's first lines."""


@main.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Folder for scans and evaluations.")
@click.option("--data", "only", type=click.Choice(list(SIZES)), help="Units of these scans alone: a core for each.")
@click.option("--also", multiple=True, metavar="DATA,ARCH,START,LR,SEED,SIZE,SAMPLES", help="Units beside the table's.")
def run(work: Path, only: str | None, also: tuple[str, ...]) -> None:
    """Do what has no record yet, one unit after the other, on one core."""
    scans = work / "phantom"
    if not scans.exists():
        _call("segloc_synth", "phantom", "--out", scans, "--images", SCANS, "--backgrounds", "2", "--seed", PHANTOM)
    real = Path(os.environ.get("SEGLOC_SCANS", Path(__file__).resolve().parents[2] / "shared" / "data"))
    places = {"phantom": scans / "pidray", "sixray": real / "sixray_scans"}
    others = [Unit(d, a, s, float(lr), *map(int, rest)) for d, a, s, lr, *rest in (one.split(",") for one in also)]
    known = {unit_of(one) for one in read()}
    for unit in others + units():
        if unit in known or only not in (None, unit.data):
            continue
        name = "-".join(str(value) for value in asdict(unit).values())
        flags = ["--data", places[unit.data], "--ckpt", unit.start, "--arch", unit.arch, "--width", "64", "--on", "val"]
        flags += ["--labels", "10%", "--detector", FAMILY[unit.data], "--out", work / name, "--seed", unit.seed]
        flags += ["--seeds", 1, "--size", unit.size, "--samples", unit.samples, "--lr", unit.lr, "--device", "cpu"]
        _call("segloc_eval", "run", *flags)
        with RECORDS.open("a") as file:
            file.write(json.dumps(record(unit, work / name, work, real)) + "\n")


def _call(module: str, *flags: object) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", module, *map(str, flags)], check=True, env=environment)


@main.command()
def table() -> None:
    """Print both tables in Markdown: of the trunks, and of what else was run."""
    found: dict[tuple[object, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in read():
        found[tuple(one[name] for name in ("data", "arch", "start", "lr", "size", "samples"))].append(one)
    chosen = {(u.data, u.arch, u.start, u.lr, u.size, u.samples) for u in units()}
    for title, wanted in (("of the table", True), ("beside it", False)):
        click.echo(f"\n{title}\n\n| scans | px | trunk | from | lr | seen | seeds | box AP | AP50 |")
        click.echo("|---" * 9 + "|")
        for group, members in sorted(found.items(), key=str):
            if (group in chosen) == wanted:
                data, arch, start, lr, size, samples = group
                ap, ap50 = (_spread([100 * one[name] for one in members]) for name in ("ap", "ap50"))
                click.echo(
                    f"| {data} | {size} | {arch} | {start} | {lr} | {samples} | {len(members)} | {ap} | {ap50} |"
                )


def _spread(values: list[float]) -> str:
    """The mean, and least to most of several."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
