"""The evaluation: every arm fine-tuned by one recipe on the same scans in the same order, then scored alike.

Everything under the output folder is written here, the report excepted. metrics.json holds

    format    1
    command   the command line
    config    as in config.json
    data      fingerprint, masks (bool), classes, scans and objects per split, problems
    versions  of the libraries that decide the numbers
    arms      name -> source, sha256, hardware, data (the fingerprint),
              scores    bbox | segm -> split (several splits: `all` too) -> overall and per_class (score.Scores)
              training  scans, steps, seconds, seconds_per_scan, first_loss, last_loss
              testing   scans, seconds_per_scan

Scores are 0..1, null where there is no such ground truth. The metrics.json in an arm's folder holds that arm's entry
and is its done-marker.
"""

import json
import logging
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch
from torch import nn

from segloc_eval.config import IMAGENET, RANDOM, Arm, Config
from segloc_eval.datasets import Data, Scan, load_data, pooled, truth
from segloc_eval.mm.model import DETECTIONS, build_detector, load_backbone, load_imagenet
from segloc_eval.mm.run import CLIP, WARM_UP, WEIGHT_DECAY, Schedule, fine_tune, predict
from segloc_eval.report import write_report
from segloc_eval.score import Kind, score
from segloc_synth.console import progress
from segloc_synth.files import atomic_write, output_dir, read_json, write_json
from segloc_synth.problems import describe, refuse
from segloc_train.checkpoint import save_tensors

FORMAT = 1  # of metrics.json
LIBRARIES = (
    *("segloc", "torch", "torchvision", "onedl-mmdetection", "onedl-mmcv", "onedl-mmengine"),
    *("faster-coco-eval", "numpy", "opencv-python"),
)
RECIPE = {  # what no option changes, and yet decides the numbers
    **{"optimiser": "AdamW", "weight_decay": WEIGHT_DECAY, "gradient_clip": CLIP, "warm_up": WARM_UP},
    "detections_per_scan": DETECTIONS,
}
log = logging.getLogger("segloc")


def evaluate(config: Config, out: Path, device: torch.device, strict: bool = False) -> tuple[Path, list[str]]:
    """Run the evaluation; return the report's path and the data's problems, a line per kind.

    Finished arms of the same configuration and data are kept.
    Writes config.json, labels.txt (training scans used), per arm log.jsonl, detector.pth,
    SPLIT/results.bbox.json (and .segm.json; image ids as in the data set) and metrics.json, then metrics.json and
    report.html of all arms. click.ClickException for unusable data (with `strict`: for a bad record), checkpoints
    or output folder, before anything is trained.
    """
    _accept_folder(config, out)
    data = load_data(Path(config.data), ["all" if config.labels is None else str(config.labels)], config.seed)
    if strict:
        refuse(data.problems, config.data)
    _accept_arms(config, out, data)
    log.info("%s: %s", config.data, _counts(data))
    for line in describe(data.problems):
        log.info("  %s", line)
    for arm in config.arms:
        _detector(arm, config, data)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", _resolved(config))
    with atomic_write(out / "labels.txt") as file:
        file.write("".join(f"{_name(scan, data)}\n" for scan in data.train).encode())
    arms = {}
    for arm in config.arms:
        done = out / arm.name / "metrics.json"
        if done.is_file():
            log.info("%s: already done, kept", arm.name)
        else:
            _run_arm(arm, config, data, out / arm.name, device)
        arms[arm.name] = read_json(done)
    metrics = {
        **{"format": FORMAT, "command": shlex.join(["segloc-eval", *sys.argv[1:]]), "config": _resolved(config)},
        "data": _about(data),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "arms": arms,
    }
    write_json(out / "metrics.json", metrics)
    return write_report(out, metrics, data), describe(data.problems)


def _resolved(config: Config) -> dict[str, Any]:
    return {**config.as_dict(), "recipe": RECIPE}


def _accept_folder(config: Config, out: Path) -> None:
    """A new or empty folder, or one of the same configuration; click.ClickException otherwise."""
    if not (out / "config.json").is_file():
        if out.exists():
            output_dir(out, "name another --out")
        return
    before, now = read_json(out / "config.json"), _resolved(config)
    before = before if isinstance(before, dict) else {}
    different = [key for key in now if before.get(key) != now[key]]
    if different:
        raise click.ClickException(f"{out}: holds something else (other {', '.join(different)}); name another --out")


def _accept_arms(config: Config, out: Path, data: Data) -> None:
    """click.ClickException when an arm in `out` was made with other data, which may be at the same path."""
    for arm in config.arms:
        done = out / arm.name / "metrics.json"
        about = read_json(done) if done.is_file() else {"data": data.fingerprint}
        if not isinstance(about, dict) or about.get("data") != data.fingerprint:
            raise click.ClickException(f"{done}: made with other data than {config.data} holds now; name another --out")


def _detector(arm: Arm, config: Config, data: Data) -> nn.Module:
    """The detector as the arm starts: same heads for all arms, backbone as the arm says."""
    detector = build_detector(config.arch, config.width, len(data.classes), data.masks, config.size, config.seed)
    if arm.source == IMAGENET:
        load_imagenet(detector, config.arch)
    elif arm.source != RANDOM:
        load_backbone(detector, Path(arm.source))
    return detector


def _run_arm(arm: Arm, config: Config, data: Data, folder: Path, device: torch.device) -> None:
    folder.mkdir(exist_ok=True)
    detector = _detector(arm, config, data)
    schedule = Schedule(config.epochs, config.batch_size, config.lr, config.size, config.seed)
    categories = list(data.classes)
    labels = {id: index for index, id in enumerate(categories)}
    steps = schedule.steps(len(data.train))
    start = time.perf_counter()
    losses = []
    with (folder / "log.jsonl").open("w", buffering=1) as file:
        training = fine_tune(detector, data.train, labels, schedule, device)
        for record in progress(training, steps, f"{arm.name}: fine-tuning, steps"):
            file.write(json.dumps(record) + "\n")
            losses.append(record["loss"])
    trained = time.perf_counter()
    scans = [scan for group in data.tests.values() for scan in group]
    testing = predict(detector, scans, categories, config.size, device)
    found = list(progress(testing, len(scans), f"{arm.name}: testing, scans"))
    tested = time.perf_counter()
    save_tensors(folder / "detector.pth", {name: x.cpu() for name, x in detector.state_dict().items()})
    by_scan = {scan.id: results for scan, results in zip(scans, found, strict=True)}
    kinds: tuple[Kind, ...] = ("bbox", "segm") if data.masks else ("bbox",)
    for split, group in data.tests.items():
        _write_results(folder / split, group, by_scan, kinds)
    metrics = {
        **{"source": arm.source, "sha256": arm.sha256, "data": data.fingerprint},
        "scores": {kind: _scores(data, by_scan, kind) for kind in kinds},
        "training": {
            **{"scans": len(data.train), "steps": steps, "seconds": trained - start},
            "seconds_per_scan": (trained - start) / (steps * config.batch_size),
            **{"first_loss": losses[0], "last_loss": losses[-1]},
        },
        "testing": {"scans": len(scans), "seconds_per_scan": (tested - trained) / len(scans)},
        "hardware": _hardware(device),
    }
    write_json(folder / "metrics.json", metrics)


def _scores(data: Data, by_scan: dict[int, list[dict[str, Any]]], kind: Kind) -> dict[str, Any]:
    return {
        split: score(truth(group, data.classes), [result for scan in group for result in by_scan[scan.id]], kind)
        for split, group in pooled(data.tests).items()
    }


def _write_results(
    folder: Path, scans: list[Scan], by_scan: dict[int, list[dict[str, Any]]], kinds: tuple[Kind, ...]
) -> None:
    """Standard COCO results files, under the image ids of the data set's own json."""
    folder.mkdir(exist_ok=True)
    for kind in kinds:
        key = "bbox" if kind == "bbox" else "segmentation"
        results = [
            {
                **{"image_id": scan.source_id, "category_id": result["category_id"]},
                **{key: result[key], "score": result["score"]},
            }
            for scan in scans
            for result in by_scan[scan.id]
        ]
        write_json(folder / f"results.{kind}.json", results, indent=None)


def _about(data: Data) -> dict[str, Any]:
    splits = {"train": data.train, **pooled(data.tests)}
    return {
        **{"fingerprint": data.fingerprint, "masks": data.masks, "classes": list(data.classes.values())},
        "scans": {name: len(group) for name, group in splits.items()},
        "objects": {name: sum(len(scan.objects) for scan in group) for name, group in splits.items()},
        "problems": describe(data.problems),
    }


def _counts(data: Data) -> str:
    tests = ", ".join(f"{len(group)} {name}" for name, group in data.tests.items())
    masks = "boxes and masks" if data.masks else "boxes only, so no mask head and no mask scores"
    return f"{len(data.train)} training scans, to test on {tests}; {len(data.classes)} classes; {masks}"


def _name(scan: Scan, data: Data) -> str:
    """The scan's path below the data's folder; the bare name of one that lies elsewhere."""
    inside = scan.path.is_relative_to(data.root)
    return scan.path.relative_to(data.root).as_posix() if inside else scan.path.name


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
