"""The benchmark's truth: a re-simulated composite has its object where the composite has it; all else stays."""

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from pycocotools import mask as coco_mask

from segloc_synth.cli import cli
from segloc_synth.phantom import write_phantom
from segloc_synth.shards.format import ShardReader
from tests.conftest import ROOT


def test_truth_has_the_object_where_the_composite_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    realism_truth = importlib.import_module("realism_truth")
    write_phantom(tmp_path / "data", 24, 6, 3, 256)
    args = ["build", "--objects", tmp_path / "data/pidray", "--backgrounds", tmp_path / "data/sixray"]
    args += ["--out", tmp_path / "pairs", "--n", 6, "--size", 128, "--blend", "multiply", "--workers", 1]
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    truth, reader = realism_truth.Truth(tmp_path / "data"), ShardReader(tmp_path / "pairs")
    for index in range(6):
        sample = reader[index]
        record = sample.meta["key"]
        mask = coco_mask.decode(record["mask"])
        _, _, own = truth.object(record["segment"])
        matrix = realism_truth.scan_to_canvas(record, own)
        laid = cv2.warpPerspective(own * 255, matrix, (128, 128), flags=cv2.INTER_AREA) >= 128
        near = np.ones((3, 3), np.uint8)  # thin parts fall between pixels
        assert (laid & (cv2.dilate(mask, near) == 1)).sum() > 0.95 * laid.sum()
        assert (cv2.dilate(laid.astype(np.uint8), near) & mask).sum() > 0.9 * mask.sum()
        true = realism_truth.recoded(truth.view(record), 90)[0].astype(int)
        change = np.abs(true - realism_truth.decoded(sample.key)).mean(2)
        far = cv2.dilate(mask, np.ones((13, 13), np.uint8)) == 0
        assert change[far].mean() < 1  # JPEG blocks that hold both
        bare = realism_truth.recoded(truth.view(record, 0.0), 90)[0].astype(int)
        effect = np.abs(true - bare).mean(2)
        assert effect[mask == 1].mean() > 10 * effect[far].mean()
