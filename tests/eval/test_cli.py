"""The command as a user types it: a whole small evaluation, repeated runs, one-line errors, real scans."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO

from segloc_eval.cli import command
from segloc_synth import console
from segloc_train.backbone import SDANet
from segloc_train.checkpoint import save_tensors

Make = Callable[..., Path]
SCANS = Path(os.environ.get("SEGLOC_SCANS", Path(__file__).parents[2] / "../shared/data"))
TINY = ["--labels", "8", "--epochs", "2", "--size", "64", "--width", "16", "--device", "cpu"]


def run(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> int:
    """Exit code of the console script."""
    monkeypatch.setattr("sys.argv", ["segloc-eval", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        console.run(command)
    return int(ended.value.code or 0)


def pretrained(folder: Path, **about: Any) -> Path:
    """A run folder as segloc-train leaves it."""
    folder.mkdir()
    torch.manual_seed(1)
    save_tensors(folder / "backbone.pth", SDANet("resnet18", 16).state_dict())
    (folder / "meta.json").write_text(json.dumps({"arch": "resnet18", "width": 16, **about}))
    return folder


def test_two_arms_end_to_end(
    pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = pidray(train=9, test=2), tmp_path / "out"
    arms = ("--ckpt", pretrained(tmp_path / "a<b>&c"), "--ckpt", "random")
    assert run(monkeypatch, *arms, "--data", data, "--out", out, *TINY) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    assert len((out / "labels.txt").read_text().splitlines()) == 8
    text = (out / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    metrics = json.loads(text)
    assert list(metrics["arms"]) == ["a<b>&c", "random"] and metrics["data"]["scans"]["all"] == 6
    for about in metrics["arms"].values():
        for kind in ("bbox", "segm"):
            assert list(about["scores"][kind]) == ["easy", "hard", "hidden", "all"]
            for scores in about["scores"][kind].values():
                assert len(scores["overall"]) == 12 and list(scores["per_class"]) == ["Baton", "Scissors", "Gun"]
                assert 0 <= scores["overall"]["AP"] <= 1
    for arm in metrics["arms"]:
        assert len((out / arm / "log.jsonl").read_text().splitlines()) == 2
        truth = COCO(str(data / "annotations" / "xray_test_easy.json"))
        for kind in ("bbox", "segm"):  # the files are what any COCO tool reads, under the data set's ids
            assert truth.loadRes(str(out / arm / "easy" / f"results.{kind}.json")).getAnnIds()
    page = (out / "report.html").read_text()
    assert "a&lt;b&gt;&amp;c" in page and "a<b>" not in page and "random" in page and "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page), "one file, nothing to fetch"
    assert page.count("data:image/jpeg") == 3 * 2 * 3 and page.count("data:image/png") == 5
    # once more: finished arms are kept, a lost one is made again, the same
    kept, lost = out / "random" / "metrics.json", out / "a<b>&c"
    before, scores = kept.stat().st_mtime_ns, metrics["arms"]["a<b>&c"]["scores"]
    log = (lost / "log.jsonl").read_text()
    shutil.rmtree(lost)
    assert run(monkeypatch, *arms, "--data", data, "--out", out, *TINY) == 0
    assert kept.stat().st_mtime_ns == before
    assert json.loads((out / "metrics.json").read_text())["arms"]["a<b>&c"]["scores"] == scores
    assert (lost / "log.jsonl").read_text() == log
    capsys.readouterr()
    assert run(monkeypatch, *arms, "--data", data, "--out", out, *TINY, "--seed", "1") == 1
    error = capsys.readouterr().err
    assert error == f"Error: {out}: holds something else (other seed); name another --out\n"


def test_mistakes_are_one_line(
    pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = pidray(train=2, test=1), tmp_path / "out"
    good = pretrained(tmp_path / "good")
    other = pretrained(tmp_path / "other", width=64)
    wide = pretrained(tmp_path / "wide", width="many")
    listed = pretrained(tmp_path / "listed", arch=["resnet18"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("mine")
    torn = pretrained(tmp_path / "torn")
    (torn / "backbone.pth").write_bytes((torn / "backbone.pth").read_bytes()[:5000])
    base = ["--data", str(data), *TINY]
    cases: list[tuple[list[str | Path], int, str]] = [
        ([*base, "--ckpt", "nowhere", "--out", out], 1, "nowhere: no such file or folder"),
        ([*base, "--ckpt", full, "--out", out], 1, "no backbone.pth in it"),
        ([*base, "--ckpt", torn, "--out", out], 1, "backbone.pth: refused"),
        ([*base, "--ckpt", good, "--ckpt", other, "--out", out], 1, "width 64, but"),
        ([*base, "--ckpt", good, "--width", "32", "--out", out], 1, "the command line says 32"),
        ([*base, "--ckpt", "random", "--out", full], 1, "folder is not empty"),
        ([*base, "--ckpt", "random", "--arch", "vgg", "--out", out], 1, "arch 'vgg' is none of"),
        ([*base, "--ckpt", "random", "--ckpt", "random", "--out", out], 1, "given twice"),
        ([*base, "--ckpt", "random", "--labels", "0", "--out", out], 2, "a number of scans above 0"),
        ([*base, "--ckpt", "random", "--lr", "-1", "--out", out], 2, "--lr"),
        ([*base, "--ckpt", "random", "--lr", "nan", "--out", out], 2, "nan is not a finite number"),
        ([*base, "--ckpt", "random", "--lr", "inf", "--out", out], 2, "inf is not a finite number"),
        ([*base, "--ckpt", "random", "--seed", str(2**32), "--out", out], 2, "--seed"),
        ([*base, "--ckpt", "random", "--batch-size", "1025", "--out", out], 2, "--batch-size"),
        ([*base, "--ckpt", "random", "--device", "abacus", "--out", out], 2, "--device"),
        ([*base, "--ckpt", "random", "--device", "cuda", "--out", out], 1, "--device cuda: no CUDA device"),
        ([*base, "--ckpt", wide, "--out", out], 1, "width 'many' is no number from"),
        ([*base, "--ckpt", listed, "--out", out], 1, """arch "['resnet18']" is no name"""),
        (["--ckpt", "random", "--data", tmp_path / "no.json", "--out", out], 1, "no such file or folder"),
        ([*base, "--out", out], 2, "--ckpt"),
    ]
    for args, code, message in cases:
        assert run(monkeypatch, *args) == code, message
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error, error
        assert len([line for line in error.splitlines() if line.startswith("Error")]) == 1
    assert not out.exists(), "nothing is left behind by a mistake"


def test_bad_records_are_listed_last_and_fatal_when_strict(
    lone_json: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = lone_json(scans=14), tmp_path / "out"
    (data / "images" / "xray_images00003.png").write_bytes(b"")
    annotations = json.loads((data / "annotations.json").read_text())
    for image in annotations["images"]:  # ids as other tools write them
        image["id"] = f"s{image['id']}"
    for annotation in annotations["annotations"]:
        annotation["image_id"] = f"s{annotation['image_id']}"
    (data / "annotations.json").write_text(json.dumps(annotations))
    args = ("--ckpt", "random", "--data", data, "--out", out, *TINY[2:], "--epochs", "1")
    assert run(monkeypatch, *args, "--strict") == 1
    problem = "image file of zero bytes: images/xray_images00003.png image s3"
    error = capfd.readouterr().err
    assert error.startswith(f"Error: {data}: 1 problem(s), the first: {problem}; ") and not out.exists()
    assert run(monkeypatch, *args) == 0
    printed = capfd.readouterr()
    assert printed.out.strip() == str(out / "report.html")
    assert f"{data}: 1 skipped: {problem}" in printed.err.splitlines()
    results = json.loads((out / "random" / "test" / "results.bbox.json").read_text())
    names = {image["id"] for image in annotations["images"]}
    assert results and {result["image_id"] for result in results} <= names
    trained = (out / "labels.txt").read_text().split()
    assert len(trained) == 8 and all(name.startswith("images/") for name in trained)
    # the same folder, other pictures: the arm that is done belongs to the old ones
    (data / "annotations.json").write_text(json.dumps(annotations, indent=1))
    assert run(monkeypatch, *args) == 1
    done = out / "random" / "metrics.json"
    expected = f"Error: {done}: made with other data than {data} holds now; name another --out"
    assert capfd.readouterr().err.strip() == expected


def test_real_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """67 real scans of four scanners, boxes only, a few steps."""
    source = SCANS / "xray6dom_boxes"
    if not source.is_dir():
        pytest.skip(f"no real scans: {source} is absent; SEGLOC_SCANS names their folder")
    out = tmp_path / "out"
    args = ("--ckpt", "random", "--data", source, "--out", out, "--labels", "16", "--epochs", "1", "--width", "16")
    assert run(monkeypatch, *args, "--size", "96", "--device", "cpu") == 0
    metrics = json.loads((out / "metrics.json").read_text())
    scans = metrics["data"]["scans"]
    assert scans["train"] == 16 and 20 <= scans["test"] <= 30 and not metrics["data"]["masks"]
    assert list(metrics["arms"]["random"]["scores"]) == ["bbox"]
    assert len(metrics["arms"]["random"]["scores"]["bbox"]["test"]["per_class"]) == 10
    assert not (out / "random" / "test" / "results.segm.json").exists()
