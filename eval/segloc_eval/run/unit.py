"""A unit of work: one arm, fine-tuned on one set of labels with one seed, and what it finds in the test splits."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch

from segloc_eval.config import COMPOSITES, DETECTOR, unit_folder
from segloc_eval.data.datasets import Data
from segloc_eval.data.scans import Scan
from segloc_eval.mm.data import Mixture
from segloc_eval.mm.model import ABOUT, build_detector, load_arm, load_detector
from segloc_eval.mm.predict import Results, predict_shared
from segloc_eval.mm.ranks import ending_alone, failing_together
from segloc_eval.mm.tuning import PLAIN, FineTuning
from segloc_eval.recipe import DetectorName, Recipe, kinds
from segloc_eval.run.learnt import accept_learnt, learnt_by, mark
from segloc_eval.run.machine import forget_peak, hardware, peak_memory, versions
from segloc_eval.run.results import read_own, results_file
from segloc_synth.console import log, progress
from segloc_synth.files import atomic_write, write_json
from segloc_train.dist import World
from segloc_train.model.checkpoint import load_state, save_tensors
from segloc_train.model.start import origin
from segloc_train.run.loop import stop_signals

LOG, LAST = "log.jsonl", "last.pt"
SAVE_EVERY = 60.0  # seconds
KEYS = {"bbox": ("bbox", "score"), "segm": ("segmentation", "score"), "semantic": ("segmentation",)}


@dataclass(frozen=True)
class Unit:
    """`arm` is the arm's name, `source` what it starts from, `sha256` of that file; `labels` a key of Data.sizes.

    `beside`: digest of what is learnt beside labelled scans, "" for nothing.
    """

    labels: str
    arm: str
    source: str
    sha256: str | None
    seed: int
    beside: str = ""

    def __str__(self) -> str:
        learnt = self.labels if self.labels == COMPOSITES else f"{self.labels} labels"
        return f"{self.arm}, {learnt}, seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Where all of it lies, below the evaluation's folder."""
        return unit_folder(out, self.arm, self.labels, self.seed)


def run_unit(
    unit: Unit,
    data: Data,
    recipe: Recipe,
    detector: DetectorName,
    folder: Path,
    world: World,
    device: torch.device,
    mixture: Mixture = PLAIN,
) -> dict[str, Any]:
    """Fine-tune, test, and write into `folder`; returns the unit's entry of metrics.json, but for the scores.

    Goes on from folder/last.pt, written every minute or so, and when SIGINT or SIGTERM comes; a unit that is done is
    not done again, but for results files that are lost. Writes log.jsonl (a record a step), detector.pth,
    SPLIT/results.KIND.json (COCO results under the data set's own image ids), and detector.json last, which holds the
    entry too and is the mark of a finished unit. Every rank calls it: they share the training batches and the test
    scans, and the first one writes. What one rank cannot do, none goes on with.

    Raises:
        click.ClickException: the arm's weights do not fit, the loss is not finite, memory runs out, a scan cannot be
            read any more, or `folder` belongs to another unit. On several ranks all raise it; only after its
            subclass RankLost, which says that another rank ended, no other unit can follow.
        SystemExit: 130 or 143, when a signal stopped the training after a step and the state was saved.
    """
    mixture = mixture.of_steps(recipe.steps(data.sizes[unit.labels]))
    key = _identity(unit, data, recipe, detector, mixture)
    if (folder / ABOUT).is_file():
        entry = _entry_of(folder / ABOUT, key)
        if all(results_file(folder, split, kind).is_file() for split in data.scored for kind in kinds(detector)):
            return entry
        if (folder / DETECTOR).is_file():  # it finds again what is lost; without it the unit is done anew
            eval_detector(folder / DETECTOR, data, folder, world, device)
            return entry
    forget_peak(device)
    scans = data.train[: data.sizes[unit.labels]]
    with failing_together(world):
        model: Any = build_detector(recipe, detector, len(data.classes), unit.seed)
        told = load_arm(model, unit.source, recipe, detector, list(data.classes.values()))
        known = origin(recipe.arch, unit.source)
        labels = {id: index for index, id in enumerate(data.classes)}
        tuning = FineTuning(model, scans, labels, recipe, unit.seed, world, device, mixture)
        spent = _resume(tuning, folder / LAST, key)
        if world.first:
            log.info("%s: %s", unit, told)
            folder.mkdir(parents=True, exist_ok=True)
            _cut_log(folder / LOG, tuning.step)
    world.agree("the step that they start from", str(tuning.step))
    seconds = _train(tuning, folder, key, str(unit), spent)
    losses = [record["loss"] for record in _records(folder / LOG)]
    training = {
        **{"samples": recipe.total_samples(len(scans)), "steps": tuning.total, "seconds": seconds},
        **{"seconds_per_scan": seconds / recipe.total_samples(len(scans)), "peak_memory_bytes": peak_memory(device)},
        **{"first_loss": losses[0], "last_loss": losses[-1]},
    }
    testing = predict_splits(tuning.detector, data, recipe, detector, folder, world, device, str(unit))
    entry = {
        **{"arm": unit.arm, "labels": unit.labels, "seed": unit.seed, "scans": len(scans)},
        **{"training": training, "testing": testing, "hardware": hardware(device, world)},
    }
    if world.first:
        with ending_alone(world):
            save_tensors(folder / DETECTOR, {name: x.cpu() for name, x in tuning.detector.state_dict().items()})
            about = {
                **{"format": 1, "detector": detector, "arch": recipe.arch, "width": recipe.width, "size": recipe.size},
                **{"mean": model.backbone.shape.mean, "std": model.backbone.shape.std},
                **({"pretrained": known} if known else {}),
                "classes": [{"id": id, "name": name} for id, name in data.classes.items()],
                **{"recipe": recipe.as_dict(), "source": unit.source, "sha256": unit.sha256, "versions": versions()},
                **{"unit": key, "entry": entry},
                "learnt": sorted({mark(scan) for scan in [*scans, *data.benign]} | learnt_by(unit.source)),
            }
            write_json(folder / ABOUT, about)
            (folder / LAST).unlink(missing_ok=True)
    world.wait()
    return entry


def _identity(unit: Unit, data: Data, recipe: Recipe, detector: DetectorName, mixture: Mixture = PLAIN) -> str:
    """sha256 of everything that decides a unit's numbers."""
    scans = [scan.path.name for scan in data.train[: data.sizes[unit.labels]]]
    tests = {split: len(group) for split, group in data.scored.items()}
    parts = [unit.source if unit.sha256 is None else unit.sha256, unit.seed, data.fingerprint, detector]
    value = [*parts, recipe.as_dict(), list(data.classes.items()), scans, tests]
    if unit.beside:  # units of before have none
        value += [unit.beside, [[len(stream.scans), stream.count] for stream in mixture.streams]]
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _entry_of(path: Path, key: str) -> dict[str, Any]:
    """The entry of a finished unit; click.ClickException when it is another one's."""
    about = read_own(path, "delete it to have the unit done anew")
    entry = about.get("entry") if isinstance(about, dict) else None
    if not isinstance(entry, dict) or about.get("unit") != key:
        raise click.ClickException(f"{path}: is of other data or options; name another --out")
    return entry


def _train(tuning: FineTuning, folder: Path, key: str, name: str, spent: float) -> float:
    """Train to the end, after `spent` seconds of an earlier run; returns the seconds that all of it took."""
    world = tuning.world
    start = saved = time.monotonic()
    with stop_signals() as stopped, (folder / LOG).open("a" if world.first else "r", buffering=1) as file:
        shown: Iterator[dict[str, float]] = (tuning.advance(batch) for batch in tuning.batches())
        if world.first:
            shown = progress(shown, tuning.total, f"{name}: fine-tuning, steps", tuning.step)
        for record in shown:
            stop = bool(world.gather(torch.tensor([len(stopped)])).any())
            now = time.monotonic()
            if world.first:
                with ending_alone(world):
                    file.write(json.dumps(record) + "\n")
                    if stop or now - saved > SAVE_EVERY or tuning.step == tuning.total:
                        os.fsync(file.fileno())  # no state without its records
                        save_tensors(folder / LAST, {"unit": key, "seconds": spent + now - start, **tuning.state()})
                        saved = time.monotonic()
                if stop:
                    log.info("%s: stopped after step %d of %d; run again to go on", name, tuning.step, tuning.total)
            if stop:
                raise SystemExit(128 + (stopped[0] if stopped else signal.SIGTERM))
    world.wait()  # until the log is whole
    return spent + time.monotonic() - start


def _resume(tuning: FineTuning, last: Path, key: str) -> float:
    """Load `last`, if it is there; returns the seconds of training behind it. click.ClickException for another's."""
    if not last.is_file():
        return 0.0
    state = load_state(last, "delete it to start the unit anew")
    if not isinstance(state, dict) or state.get("unit") != key:
        raise click.ClickException(f"{last}: is not the state of this unit; name another --out, or delete the file")
    try:
        tuning.load(state)
        return float(state["seconds"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError):
        raise click.ClickException(f"{last}: is not the state of this unit; delete it to start the unit anew") from None


def _cut_log(path: Path, steps: int) -> None:
    """Leave in the log the records of the first `steps` steps: later ones, and half a line, will be done again.

    click.ClickException when it lacks some of them.
    """
    kept = _records(path)[:steps] if path.is_file() else []
    if [record.get("step") for record in kept] != list(range(1, steps + 1)):
        raise click.ClickException(
            f"{path}: lacks steps that {LAST} beside it has done; delete both to start the unit anew"
        )
    with atomic_write(path) as file:
        file.write("".join(json.dumps(record) + "\n" for record in kept).encode())


def _records(path: Path) -> list[dict[str, Any]]:
    """The records of a log up to the first line that is none."""
    found = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict):
            break
        found.append(record)
    return found


def predict_splits(
    model: Any,
    data: Data,
    recipe: Recipe,
    detector: DetectorName,
    folder: Path,
    world: World,
    device: torch.device,
    name: str,
) -> dict[str, Any]:
    """Let a detector, on every rank the same, find what it can in all that is scored; returns `testing` of the entry.

    Writes SPLIT/results.KIND.json below `folder`.
    """
    start = time.monotonic()
    scans = [scan for group in data.scored.values() for scan in group]
    if not scans:
        return {"scans": 0, "seconds_per_scan": 0.0}
    found = predict_shared(model, scans, list(data.classes), recipe, world, device, f"{name}: testing, scans")
    seconds = time.monotonic() - start
    if world.first:
        by_scan = {scan.id: results for scan, results in zip(scans, found, strict=True)}
        with ending_alone(world):
            for split, group in data.scored.items():
                write_results(folder / split, group, by_scan, detector)
    return {"scans": len(scans), "seconds_per_scan": seconds / len(scans)}


def write_results(folder: Path, scans: list[Scan], by_scan: dict[int, Results], detector: DetectorName) -> None:
    """Standard COCO results files of `scans`, a file per kind, under the image ids of the data set's own json."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds(detector):
        results = [
            {
                **{"image_id": scan.source_id, "category_id": result["category_id"]},
                **{key: result[key] for key in KEYS[kind]},
            }
            for scan in scans
            for result in by_scan[scan.id]
        ]
        write_json(folder / f"results.{kind}.json", results, indent=None)


def eval_detector(weights: Path, data: Data, folder: Path, world: World, device: torch.device) -> dict[str, Any]:
    """Test a fine-tuned detector (detector.pth or its folder) as it is; returns the entry without arm and scores.

    Writes SPLIT/results.KIND.json below `folder`. click.ClickException when it cannot be used, knows other classes, or
    learnt from scans that are to be scored, by their files' marks.
    """
    model, about = load_detector(weights)
    theirs, ours = list(about.classes.values()), list(data.classes.values())
    if theirs != ours:
        other = sorted(set(theirs) ^ set(ours))
        differ = f"only one side has {', '.join(other[:3])}" if other else "their order differs"
        raise click.ClickException(f"{weights}: knows {len(theirs)} classes that are not the data's ({differ})")
    accept_learnt(str(weights), data)
    testing = predict_splits(model, data, about.recipe, about.detector, folder, world, device, str(weights))
    return {"detector": about.detector, "testing": testing, "hardware": hardware(device, world)}
