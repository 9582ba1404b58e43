"""The three commands one after the other, as a user types them."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from segloc_eval.cli import command
from segloc_synth import console
from segloc_train.model.checkpoint import load_state, load_tensors
from tests.eval.conftest import signalled

TRAIN = ["--arch", "resnet18", "--width", "64", "--batch-size", "16", "--epochs", "1"]
TUNE = ["--epochs", "1", "--size", "64", "--seeds", "1"]


def run(stage: str, *args: object) -> None:
    typed = [sys.executable, "-m", f"segloc_{stage}", *(str(part) for part in args)]
    result = subprocess.run(typed, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def check(run_folder: Path, report: Path, arms: int, kinds: set[str]) -> None:
    records = [json.loads(line) for line in (run_folder / "log.jsonl").read_text().splitlines()]
    assert 0 <= records[-1]["held_out_accuracy"] <= 1
    metrics = json.loads((report / "metrics.json").read_text())
    assert len(metrics["arms"]) == arms
    assert all(set(unit["scores"]) == kinds for unit in metrics["units"]) and len(metrics["units"]) == arms
    weights = hashlib.sha256((run_folder / "backbone.pth").read_bytes()).hexdigest()
    assert metrics["arms"][run_folder.name]["sha256"] == weights
    assert (report / "report.html").stat().st_size > 10_000


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few simulated scans of both scanners."""
    folder = tmp_path_factory.mktemp("simulated") / "scans"
    run("synth", "phantom", "--out", folder, "--images", 16, "--backgrounds", 24, "--size", 128)
    return folder


def test_simulated_scans_to_a_report(tmp_path: Path, simulated: Path) -> None:
    scans = simulated
    pairs, weights, first, report = (tmp_path / name for name in ("pairs", "run", "first", "report"))
    lists = tmp_path / "lists"
    run("eval", "labels", scans / "pidray", "--labels", 8, "--labels", "all", "--out", lists)
    sources = ["--objects", scans / "pidray", "--images", lists / "labels-all.txt", "--backgrounds", scans / "sixray"]
    run("synth", "build", *sources, "--out", pairs, "--n", 64, "--size", 64)
    run("train", "--shards", pairs, "--out", weights, *TRAIN)
    assert not learnt(pairs, "--ckpt", weights, "--out", first, "--samples", 32, "--size", 64)
    images = json.loads((first / "composites" / "annotations.json").read_text())["images"]
    assert [image["pair"] for image in images[::2]] == list(range(16)), "no more than are seen"
    data = ["--data", scans / "pidray", "--labels", 8]
    run("eval", "--ckpt", weights, "--ckpt", "random", "--ckpt", first, *data, "--out", report, *TUNE)
    assert (report / "labels-8.txt").read_text() == (lists / "labels-8.txt").read_text()
    check(weights, report, 3, {"bbox", "segm"})


def learn(*args: object) -> None:
    """segloc-eval pretrain in this process, which it ends."""
    sys.argv = ["segloc-eval", "pretrain", *map(str, args)]
    console.run(command)


def told(*args: object) -> str:
    """What segloc-eval tells when it fails, else nothing."""
    result = CliRunner().invoke(command, [*map(str, args)])
    return result.stderr if result.exit_code else ""


def learnt(*args: object) -> str:
    return told("pretrain", *args)


def test_a_detector_learns_composites_and_goes_on_where_it_was(tmp_path: Path, simulated: Path, thin: None) -> None:
    """Stopped, it ends with the weights of a run that was not; other options, or another build, are refused."""
    pairs, first, whole = (tmp_path / name for name in ("pairs", "first", "whole"))
    build = ["build", "--objects", simulated / "pidray", "--backgrounds", simulated / "sixray", "--size", 64]
    run("synth", *build, "--out", pairs, "--n", 16)
    flags = ["--arch", "resnet18", "--width", "16", "--size", "64", "--detector", "faster-rcnn", "--samples", "80"]
    log = first / "log.jsonl"
    assert signalled(4, signal.SIGINT, tmp_path / "told", learn, pairs, *flags, "--out", first) == 130
    steps = log.read_text().splitlines()
    assert load_state(first / "last.pt")["step"] == len(steps) == 4
    log.write_text("\n".join([*steps[:-1], json.dumps({**json.loads(steps[-1]), "kept": 1})]) + "\n")
    (whole / "composites").mkdir(parents=True)  # as a killed export leaves it
    (whole / "config.json").write_text((first / "config.json").read_text())
    for folder in (first, whole):
        assert not learnt(pairs, *flags, "--out", folder)
    ends = [load_tensors(folder / "detector.pth") for folder in (first, whole)]
    assert all(torch.equal(x, ends[1][name]) for name, x in ends[0].items())
    images = json.loads((first / "composites" / "annotations.json").read_text())["images"]
    assert '"kept"' in log.read_text(), "steps that were done are not done again"
    assert len(images) == 32 and len(log.read_text().splitlines()) == 80 // 8
    written = (first / "detector.pth").stat().st_mtime_ns
    shutil.rmtree(first / "composites")
    assert not learnt(pairs, *flags, "--out", first)
    assert (first / "detector.pth").stat().st_mtime_ns == written, "done, with its pictures or without"
    refused("other data or options", learnt(pairs, *flags, "--out", first, "--lr", "0.1"))
    run("synth", *build, "--out", pairs, "--n", 24)
    refused("of another build", learnt(pairs, *flags, "--out", first))
    assert not learnt(pairs, *flags[:-2], "--out", tmp_path / "once")
    assert len((tmp_path / "once" / "log.jsonl").read_text().splitlines()) == 48 // 8, "every composite once"


def test_composites_and_benign_scans_in_every_batch(tmp_path: Path, simulated: Path, thin: None) -> None:
    """They make arms of their own beside those without, under one recipe; benign scans like a scored one are none."""
    pairs, out, benign = (tmp_path / name for name in ("pairs", "out", "benign"))
    lists = tmp_path / "lists"
    assert not told("labels", simulated / "pidray", "--labels", 4, "--benign", simulated / "sixray", "--out", lists)
    learn, judge = ((lists / f"benign-{part}.txt").read_text().split() for part in ("learn", "judge"))
    assert {Path(name) for name in learn + judge} < set((simulated / "sixray").rglob("*.jpg"))
    numbers = [{int(Path(name).stem[1:]) for name in part} for part in (learn, judge)]
    assert len(learn) == 16 and 2 <= len(judge) <= 6 and min(abs(a - b) for a in numbers[0] for b in numbers[1]) == 3
    shutil.copytree(simulated / "sixray", benign)
    shutil.copy(next((simulated / "pidray" / "hard").iterdir()), benign / "copy.png")
    labelled = simulated / "pidray" / (lists / "labels-4.txt").read_text().split()[0]
    shutil.copy(labelled, benign / "labelled.png")
    build = ["build", "--objects", simulated / "pidray", "--backgrounds", lists / "benign-learn.txt", "--size", 64]
    run("synth", *build, "--out", pairs, "--n", 8)
    flags = [
        "--ckpt",
        "random",
        "--data",
        simulated / "pidray",
        "--out",
        out,
        "--labels",
        4,
        "--samples",
        24,
        *TUNE[2:],
    ]
    flags += ["--arch", "resnet18", "--width", 16, "--detector", "mask-rcnn"]
    flags += ["--judge-benign", lists / "benign-judge.txt"]
    more = ["--mix", pairs, "--mix-share", 0.5, "--copy-paste", "--benign", benign]
    assert not told(*flags) and not told(*flags, *more)
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["arms"]) == ["random", "random+mix+paste+benign"]
    assert f"50 % of each batch composites of {pairs}" in metrics["arms"]["random+mix+paste+benign"]["about"]
    assert len({unit["training"]["last_loss"] for unit in metrics["units"]}) == 2
    config = json.loads((out / "config.json").read_text())
    assert config["arms"][1]["beside"]["share"] == 0.5 and "beside" not in config["arms"][0]
    assert json.loads((out / "random+mix+paste+benign" / "4" / "seed-0" / "metrics.json").read_text())["beside"]
    alike = {problem["file"] for problem in json.loads((out / "problems.json").read_text())}
    assert alike >= {"copy.png", "labelled.png", *(Path(name).name for name in judge)}, "these are not learnt from"
    alarms = metrics["alarms"]["4"]
    assert alarms["scans"] == len(judge) and set(alarms["arms"]) == set(metrics["arms"])
    found = json.loads((out / "random" / "4" / "seed-0" / "benign" / "results.bbox.json").read_text())
    assert {one["image_id"] for one in found} <= {Path(name).name for name in judge}
    assert "False alarms on benign scans" in (out / "report.html").read_text()
    assert not told(*flags, *more), "they are done"
    shutil.copy(benign / "copy.png", benign / "more.png")
    refused("learnt from other composites or benign scans than lie there now", told(*flags, *more))
    (tmp_path / "names.json").write_text('{"Pliers": "Tongs"}')
    run("synth", *build, "--classes", tmp_path / "names.json", "--out", tmp_path / "other", "--n", 8)
    refused("has objects of Tongs, which", told(*flags, "--mix", tmp_path / "other"))
    refused(
        "takes detectors of boxes", told(*flags, "--copy-paste", "--detector", "semantic", "--out", tmp_path / "no")
    )
    refused("a batch of 8 has no place left for a labelled scan", told(*flags, "--mix", pairs, "--mix-share", 1))
    refused("no finished build", told(*flags, "--mix", benign))
    (lists / "benign-judge.txt").write_text("\n".join([*judge, learn[0]]))
    refused("holds something else (other scans of --judge-benign)", told(*flags))
    assert len(json.loads((out / "config.json").read_text())["arms"]) == 2, "what is refused leaves nothing"


def refused(reason: str, told: str) -> None:
    assert reason in told and len(told.splitlines()) == 1


@pytest.mark.slow
def test_real_scans_to_a_report(tmp_path: Path, scans: Path) -> None:
    pairs, weights, report = (tmp_path / name for name in ("pairs", "run", "report"))
    sources = ["--objects", scans / "sixray_masks", "--backgrounds", scans / "sixray_negatives"]
    run("synth", "build", *sources, "--out", pairs, "--n", 2000, "--size", 96)
    run("train", "--shards", pairs, "--out", weights, *TRAIN)
    data = ["--data", scans / "xray6dom_boxes", "--labels", 16]
    run("eval", "--ckpt", weights, *data, "--out", report, *TUNE)
    check(weights, report, 1, {"bbox"})
