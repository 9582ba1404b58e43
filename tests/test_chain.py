"""The three commands one after the other, as a user types them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = ["--arch", "resnet18", "--width", "64", "--batch-size", "16", "--epochs", "1"]
TUNE = ["--epochs", "1", "--size", "64", "--seeds", "1"]


def run(stage: str, *args: object) -> None:
    command = [sys.executable, "-m", f"segloc_{stage}", *(str(part) for part in args)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
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


def test_simulated_scans_to_a_report(tmp_path: Path) -> None:
    scans, pairs, weights, report = (tmp_path / name for name in ("scans", "pairs", "run", "report"))
    run("synth", "phantom", "--out", scans, "--images", 24, "--backgrounds", 8, "--size", 128)
    lists = tmp_path / "lists"
    run("eval", "labels", scans / "pidray", "--labels", 8, "--labels", "all", "--out", lists)
    sources = ["--objects", scans / "pidray", "--images", lists / "labels-all.txt", "--backgrounds", scans / "sixray"]
    run("synth", "build", *sources, "--out", pairs, "--n", 96, "--size", 64)
    run("train", "--shards", pairs, "--out", weights, *TRAIN)
    data = ["--data", scans / "pidray", "--labels", 8]
    run("eval", "--ckpt", weights, "--ckpt", "random", *data, "--out", report, *TUNE)
    assert (report / "labels-8.txt").read_text() == (lists / "labels-8.txt").read_text()
    check(weights, report, 2, {"bbox", "segm"})


@pytest.mark.slow
def test_real_scans_to_a_report(tmp_path: Path, scans: Path) -> None:
    pairs, weights, report = (tmp_path / name for name in ("pairs", "run", "report"))
    sources = ["--objects", scans / "sixray_masks", "--backgrounds", scans / "sixray_negatives"]
    run("synth", "build", *sources, "--out", pairs, "--n", 2000, "--size", 96)
    run("train", "--shards", pairs, "--out", weights, *TRAIN)
    data = ["--data", scans / "xray6dom_boxes", "--labels", 16]
    run("eval", "--ckpt", weights, *data, "--out", report, *TUNE)
    check(weights, report, 1, {"bbox"})
