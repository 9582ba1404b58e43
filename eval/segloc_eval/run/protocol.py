"""The evaluation: every arm fine-tuned by one recipe on the same scans in the same order, then scored alike.

A unit of work is one (label set, arm, seed); what docs/METRICS.md says of the files is written here and in `unit`.
"""

import shlex
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import torch

from segloc_eval.config import BENIGN, Config
from segloc_eval.data import preflight
from segloc_eval.data.datasets import Data, load_data, write_lists
from segloc_eval.data.splits import label_slug
from segloc_eval.mm.data import Mixture
from segloc_eval.mm.model import build_detector, load_arm, load_detector
from segloc_eval.mm.ranks import failing_together
from segloc_eval.recipe import choose_detector
from segloc_eval.report.page import write_report
from segloc_eval.run import given
from segloc_eval.run.beside import accept_beside, mixed
from segloc_eval.run.joining import joined
from segloc_eval.run.learnt import accept_learnt
from segloc_eval.run.machine import versions
from segloc_eval.run.results import (
    FORMAT,
    Truth,
    are_lost,
    kinds_in,
    pictures,
    read_own,
    read_truth,
    results_file,
    write_truth,
)
from segloc_eval.run.tables import score_splits, summarise
from segloc_eval.run.unit import Unit, eval_detector, run_unit
from segloc_synth.console import fault, log
from segloc_synth.files import as_path, read_json, write_json
from segloc_train.dist import RankLost, World

GIVEN = "given"  # in place of a label set, where nothing is trained


def evaluate(
    config: Config, out: Path, device: torch.device, world: World, strict: bool = False
) -> tuple[Path, list[str], int]:
    """Run the evaluation; return the report's path, the data's problems (a line per kind), and how many units failed.

    Finished units of the same configuration and data are kept and reported, those of arms, label sets and seeds that
    are not asked for now among them; one that was interrupted goes on. A unit that fails leaves the others to be done,
    its reason stands in the report. Every rank of `world` calls this, the first writes.

    click.ClickException for unusable data (with `strict`: for a bad record), checkpoints or output folder, before
    anything is trained; when every unit failed; and when a rank is lost.
    """
    whole, config = joined(config, out)
    boxes = config.detector == "faster-rcnn"
    beside = config.arms[0].beside  # as all others'
    benign = as_path(beside.benign) if beside and beside.benign else None
    judge = as_path(config.judge) if config.judge else None
    data = load_data(as_path(config.data), whole.labels, config.seed, config.on, config.given, boxes, benign, judge)
    if strict:
        preflight.stop(data.problems, config.data, strict)
    units = _units(config)
    for unit in units:
        _accept_unit(unit, out, data)
    if world.first:
        for line in (f"{config.data}: {_counts(data)}", *(f"  {line}" for line in preflight.describe(data.problems))):
            log.info("%s", line)
    _accept_arms(config, data)
    if beside:
        accept_beside(beside, data, config.recipe, config.detector)
    world.wait()  # until no rank looks at the folder any more
    if world.first:
        _write_head(whole, data, out)
    world.wait()
    known = read_truth(out, list(data.tests))
    mixture = mixed(beside, data, config.recipe, out, world)
    failed = _finish_all(units, config, data, mixture, known, out, world, device)
    if len(failed) == len(units):
        raise click.ClickException(f"no unit could be finished; the first reason: {failed[units[0]]}")
    report = out / "report.html"
    if world.first:
        done = [unit for unit in _units(whole) if unit not in failed and _is_done(unit, out, data, known)]
        left = set(_units(whole)) - {*units, *done}
        missing = [{**_named(unit), "reason": reason, "command": _command()} for unit, reason in failed.items()]
        metrics = _metrics(whole, data, known, out, done, missing + _failed_before(out, left))
        write_json(out / "metrics.json", metrics)
        write_report(metrics, [out], report, pictures(metrics, out))  # may take long: no rank waits for it
    return report, preflight.describe(data.problems), len(failed)


def _write_head(config: Config, data: Data, out: Path) -> None:
    """What lies in `out` beside the units' folders before any is done: see docs/METRICS.md."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config.as_dict())
    write_json(out / "problems.json", preflight.as_dicts(data.problems))
    write_lists(data, out)
    write_truth(out, data)


def _units(config: Config) -> list[Unit]:
    """Seed by seed, so that an evaluation that is cut short has something of every arm to compare."""
    slugs = [GIVEN] if config.given else list(dict.fromkeys(map(label_slug, config.labels)))
    return [
        Unit(slug, arm.name, arm.source, arm.sha256, seed, arm.beside.digest if arm.beside else "")
        for slug in slugs
        for seed in range(config.seed, config.seed + config.seeds)
        for arm in config.arms
    ]


def _finish_all(
    units: list[Unit],
    config: Config,
    data: Data,
    mixture: Mixture,
    known: Truth,
    out: Path,
    world: World,
    device: torch.device,
) -> dict[Unit, str]:
    """Have the units done in order; returns why those failed that did. RankLost: no other can follow.

    What a disk does to one rank alone (OSError) ends all ranks.
    """
    failed: dict[Unit, str] = {}
    for unit in units:
        try:
            _finish(unit, config, data, mixture, known, out, world, device)
        except RankLost:
            raise
        except click.ClickException as error:  # on all ranks alike
            failed[unit] = error.message
        except OSError as error:
            if world.size > 1:
                raise
            failed[unit] = fault(error) or str(error)
        if unit in failed and world.first:
            log.warning("%s: failed: %s", unit, failed[unit])
    return failed


def _finish(
    unit: Unit,
    config: Config,
    data: Data,
    mixture: Mixture,
    known: Truth,
    out: Path,
    world: World,
    device: torch.device,
) -> None:
    """Have the unit done: its metrics.json, which is its done-marker, lies in its folder afterwards."""
    folder = unit.folder(out)
    done = folder / "metrics.json"
    if done.is_file() and not _are_lost(unit, folder, data, known):
        if world.first:
            log.info("%s: already done, kept", unit)
        return
    entry: dict[str, Any] = {"scans": 0, "testing": {"scans": sum(map(len, data.tests.values()))}, "hardware": ""}
    if not config.given:
        detector = choose_detector(config.detector, data.masks)
        entry = run_unit(unit, data, config.recipe, detector, folder, world, device, mixture)
    elif given.is_detector(unit.source):
        entry |= eval_detector(Path(unit.source), data, folder, world, device)
    with failing_together(world):
        if world.first:
            if config.given and not given.is_detector(unit.source):
                given.copy_results(Path(unit.source), known, folder)
            kinds = kinds_in(folder, known)
            if not kinds:
                raise click.ClickException(f"{unit.source}: has masks alone, and the data have none to score them by")
            scores = {kind: score_splits(known, folder, kind) for kind in kinds}
            about = {"source": unit.source, "sha256": unit.sha256, "data": data.fingerprint}
            about |= {"beside": unit.beside} if unit.beside else {}
            write_json(done, {**about, **entry, "scores": scores})


def _metrics(
    config: Config, data: Data, known: Truth, out: Path, done: list[Unit], failed: list[dict[str, Any]]
) -> dict[str, Any]:
    """What metrics.json holds."""
    folders = {unit: unit.folder(out) for unit in done}
    benign = read_truth(out, [BENIGN]) if data.judged else None
    entries = {unit: _read_unit(folder / "metrics.json") for unit, folder in folders.items()}
    told = ("scans", "scores", "training", "testing", "hardware")
    return {
        **{"format": FORMAT, "command": _command()},
        **{"date": time.strftime("%Y-%m-%d"), "config": config.as_dict()},
        "versions": versions(),
        "hardware": ", ".join(sorted({entry["hardware"] for entry in entries.values()} - {""})),
        "data": _about(data),
        "arms": {
            arm.name: {
                **{"source": arm.source, "sha256": arm.sha256, "about": arm.about},
                **({"beside": arm.beside.digest} if arm.beside else {}),
            }
            for arm in config.arms
        },
        "units": [
            {**_named(unit), **{key: entry[key] for key in told if key in entry}} for unit, entry in entries.items()
        ],
        "failed": failed,
        **summarise(known, {(unit.labels, unit.arm, unit.seed): folder for unit, folder in folders.items()}, benign),
    }


def _command() -> str:
    return shlex.join(["segloc-eval", *sys.argv[1:]])


def _failed_before(out: Path, left: set[Unit]) -> list[dict[str, Any]]:
    """Of the units that are `left` undone, those that failed in an earlier run, why, and of which command."""
    before: Any = {}
    with suppress(click.ClickException):  # there is none yet, or a torn one, which is written anew
        before = read_json(out / "metrics.json")
    told = before.get("failed", []) if isinstance(before, dict) else []
    undone = [_named(unit) for unit in left]
    return [one for one in told if {key: one.get(key) for key in ("arm", "labels", "seed")} in undone]


def _named(unit: Unit) -> dict[str, Any]:
    return {"arm": unit.arm, "labels": unit.labels, "seed": unit.seed}


def _is_done(unit: Unit, out: Path, data: Data, known: Truth) -> bool:
    """Whether the unit lies finished in `out`, with its results, and of the same data and weights."""
    folder = unit.folder(out)
    done = folder / "metrics.json"
    if not done.is_file() or _other(unit, done, data):
        return False
    if lost := _are_lost(unit, folder, data, known):
        log.warning("%s: left out, as results of it are gone from %s; ask for it again to have them anew", unit, folder)
    return not lost


def _are_lost(unit: Unit, folder: Path, data: Data, known: Truth) -> bool:
    """Whether results that a finished unit's numbers were taken from are gone; given ones know no benign scans."""
    scores = _read_unit(folder / "metrics.json")["scores"]
    looked = unit.labels != GIVEN or given.is_detector(unit.source)
    benign = data.judged and looked and "bbox" in scores and not results_file(folder, BENIGN, "bbox").is_file()
    return bool(benign) or are_lost(scores, folder, known)


def _accept_unit(unit: Unit, out: Path, data: Data) -> None:
    """click.ClickException when the unit in `out` was made with other data or weights, maybe at the same path."""
    done = unit.folder(out) / "metrics.json"
    other = _other(unit, done, data) if done.is_file() else ""
    if other:
        raise click.ClickException(f"{done}: {other}; name another --out")


def _other(unit: Unit, done: Path, data: Data) -> str:
    """With which other data or weights the unit whose metrics.json is `done` was made; empty where they are these."""
    about = _read_unit(done)
    if about["data"] != data.fingerprint:
        return f"made with other data than {data.root} holds now"
    if (about["source"], about["sha256"]) != (unit.source, unit.sha256):
        return f"made from other weights than {unit.source} holds"
    if about.get("beside", "") != unit.beside:
        return "made with other composites or benign scans than --mix and --benign hold now"
    return ""


def _read_unit(file: Path) -> dict[str, Any]:
    """A unit's metrics.json; click.ClickException when it is none."""
    about = read_own(file, "delete it to have the unit scored anew")
    if not isinstance(about, dict) or not {"data", "source", "sha256", "scans", "scores", "hardware"} <= set(about):
        raise click.ClickException(f"{file}: not as segloc-eval writes it; delete it to have the unit scored anew")
    return about


def _accept_arms(config: Config, data: Data) -> None:
    """click.ClickException unless every arm's weights fit and know no scored scan, before any is trained."""
    for arm in config.arms:
        accept_learnt(arm.source, data)
        if not config.given:
            detector = choose_detector(config.detector, data.masks)
            model = build_detector(config.recipe, detector, len(data.classes), config.seed)
            load_arm(model, arm.source, config.recipe, detector, list(data.classes.values()))
        elif given.is_detector(arm.source):
            load_detector(Path(arm.source))


def _about(data: Data) -> dict[str, Any]:
    splits = {"train": data.train, "val": data.val, **data.tests}
    return {
        **{"path": str(data.root), "fingerprint": data.fingerprint, "masks": data.masks},
        "classes": list(data.classes.values()),
        "scans": {name: len(group) for name, group in splits.items()},
        "objects": {name: sum(len(scan.objects) for scan in group) for name, group in splits.items()},
        "labels": data.sizes,
        "problems": preflight.describe(data.problems),
    }


def _counts(data: Data) -> str:
    tests = ", ".join(f"{len(group)} {name}" for name, group in data.tests.items())
    tests += f" and, for false alarms, {len(data.judged)} benign" if data.judged else ""
    masks = "boxes and masks" if data.masks else "boxes only, so no mask head and no mask scores"
    sets = ", ".join(str(size) for size in data.sizes.values())
    return f"{sets or 'no'} training scans, to test on {tests}; {len(data.classes)} classes; {masks}"
