"""The command as a user types it: a whole small evaluation, repeated runs, one-line errors, real scans."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import click
import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from segloc_eval.cli import command
from segloc_eval.config import Arm, free_name, resolve_arms
from segloc_eval.data.datasets import load_data
from segloc_eval.mm.tuning import FineTuning
from segloc_eval.numbers.compare import compare
from segloc_synth import console
from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import save_tensors

pytestmark = pytest.mark.usefixtures("one_thread", "thin", "few_draws")
Make = Callable[..., Path]
TINY = ["--labels", "8", "--epochs", "1", "--size", "64", "--width", "16", "--device", "cpu", "--seeds", "1"]


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intervals are tested elsewhere."""
    monkeypatch.setattr("segloc_eval.run.tables.compare", partial(compare, draws=50))


def run(monkeypatch: pytest.MonkeyPatch, *args: str | Path) -> int:
    """Exit code of the console script."""
    monkeypatch.setattr("sys.argv", ["segloc-eval", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        console.run(command)
    return int(ended.value.code or 0)


def valid_metrics(out: Path) -> dict[str, Any]:
    """metrics.json, after a check against its schema."""
    text = (out / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    metrics: dict[str, Any] = json.loads(text)
    schema = json.loads((files("segloc_eval") / "metrics.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(metrics)
    return metrics


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
    data, out = pidray(train=12, test=2), tmp_path / "out"
    told = {"method": "segloc", "epochs": 3, "samples_seen": 1200, "init": "imagenet"}
    arms = ("--ckpt", pretrained(tmp_path / "a<b>&c", **told), "--ckpt", "random")
    args = (*arms, "--data", data, "--out", out, *TINY[2:])
    assert run(monkeypatch, *args, "--labels", "50%", "--labels", "8", "--seeds", "2") == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    half, eight = ((out / f"labels-{slug}.txt").read_text().splitlines() for slug in ("50pct", "8"))
    assert len(eight) == 8 and half == eight[: len(half)] and 4 <= len(half) <= 6
    assert not set(eight) & set((out / "val.txt").read_text().splitlines())
    metrics = valid_metrics(out)
    assert list(metrics["arms"]) == ["a<b>&c", "random"] and len(metrics["units"]) == 8 and not metrics["failed"]
    for unit in metrics["units"]:
        for kind in ("bbox", "segm"):
            assert list(unit["scores"][kind]) == ["easy", "hard", "hidden", "mean", "pooled"]
            splits = [scores["overall"]["AP"] for scores in unit["scores"][kind].values()]
            assert splits[3] == pytest.approx(sum(splits[:3]) / 3) and all(0 <= value <= 1 for value in splits)
        folder = out / unit["arm"] / unit["labels"] / f"seed-{unit['seed']}"
        assert len((folder / "log.jsonl").read_text().splitlines()) == unit["training"]["steps"]
        truth = COCO(str(data / "annotations" / "xray_test_easy.json"))
        for kind in ("bbox", "segm"):  # the files are what any COCO tool reads, under the data set's ids
            assert truth.loadRes(str(folder / "easy" / f"results.{kind}.json")).getAnnIds()
    compared = metrics["comparison"]["50pct"]["segm"]
    difference = compared["differences"]["a<b>&c"]["splits"]["pooled"]["AP"]
    own, base = (compared["arms"][arm]["splits"]["pooled"]["AP"] for arm in metrics["arms"])
    assert difference["mean"] == pytest.approx(own["mean"] - base["mean"]) and len(difference["seeds"]) == 2
    pooled = [u["scores"]["segm"]["pooled"]["overall"]["AP"] for u in metrics["units"] if u["arm"] == "random"]
    assert base["seeds"] == pytest.approx([pooled[0], pooled[1]])  # the tables and the bootstrap agree
    assert sum(metrics["errors"]["8"]["bbox"]["random"]["counts"].values()) > 0
    assert metrics["errors"]["8"]["bbox"]["random"]["clutter"] is not None
    page = (out / "report.html").read_text()
    assert "a&lt;b&gt;&amp;c" in page and "a<b>" not in page and "random" in page and "<script" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page), "one file, nothing to fetch"
    assert page.count("data:image/jpeg") > 3, "scans are drawn"
    # once more, with a third seed: what is done is kept, a lost unit is made again, the same
    kept, lost = out / "random" / "8" / "seed-0" / "metrics.json", out / "a<b>&c" / "8" / "seed-1"
    before, log = kept.stat().st_mtime_ns, (lost / "log.jsonl").read_text()
    scores = json.loads((lost / "metrics.json").read_text())["scores"]
    shutil.rmtree(lost)
    assert run(monkeypatch, *args, "--labels", "8", "--seeds", "3") == 0
    assert kept.stat().st_mtime_ns == before and (lost / "log.jsonl").read_text() == log
    assert json.loads((lost / "metrics.json").read_text())["scores"] == scores
    metrics = valid_metrics(out)
    assert metrics["comparison"]["8"]["bbox"]["arms"]["random"]["seeds"] == [0, 1, 2]
    assert "50pct" in metrics["comparison"], "what was done before stays in the report"
    capsys.readouterr()
    assert run(monkeypatch, *args, "--labels", "8", "--size", "96") == 1
    assert capsys.readouterr().err == f"Error: {out}: holds something else (other recipe); name another --out\n"
    # detectors, and results, are scored again without training, to the same numbers
    again = tmp_path / "again"
    detector = out / "random" / "8" / "seed-0"
    given, _ = resolve_arms((str(tmp_path / "a<b>&c"), str(detector)), None, None)
    seen = json.loads(kept.read_text())["training"]["samples"]
    assert [arm.about for arm in given] == [
        "pretrained by segloc: 3 epochs, 1,200 pairs seen, from imagenet",
        f"a detector before: {seen} scans or composites seen",
    ]
    results = tmp_path / "theirs"
    for split in ("easy", "hard", "hidden"):
        (results / split).mkdir(parents=True)
        for kind in ("bbox", "segm"):  # masks may be empty
            shutil.copy(detector / split / f"results.{kind}.json", results / split)
    scoring = ("--eval-only", "--ckpt", detector / "detector.pth", "--ckpt", results, "--device", "cpu")
    assert run(monkeypatch, *scoring, "--data", data, "--out", again) == 0
    first, second = valid_metrics(again)["units"]
    assert first["scores"] == second["scores"] == json.loads(kept.read_text())["scores"]
    # what it tells of itself is not believed
    about = json.loads((detector / "detector.json").read_text())
    about["recipe"]["size"] = 10**7
    (detector / "detector.json").write_text(json.dumps(about))
    capsys.readouterr()
    assert run(monkeypatch, "predict", "--ckpt", detector, data / "easy", "--out", tmp_path / "found") == 1
    assert "the recipe's size 10000000 cannot be used" in capsys.readouterr().err
    about["recipe"]["size"] = 64
    (detector / "detector.json").write_text(json.dumps(about))
    # and found objects in any scans
    capsys.readouterr()
    assert run(monkeypatch, "predict", "--ckpt", detector, data / "easy", "--out", tmp_path / "found") == 0
    assert len(list((tmp_path / "found" / "pictures").iterdir())) == 2
    # a grey picture is used; one that is torn is not
    looking = ("predict", "--ckpt", detector, tmp_path / "grey.png")
    Image.new("L", (64, 64), 200).save(tmp_path / "grey.png")
    assert run(monkeypatch, *looking, "--out", tmp_path / "grey") == 0
    (tmp_path / "torn.png").write_bytes((tmp_path / "grey.png").read_bytes()[:60])
    assert run(monkeypatch, *looking, tmp_path / "torn.png", "--out", tmp_path / "torn") == 3


def test_a_json_that_is_a_link_has_its_pictures_beside_it(
    lone_json: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lone_json(scans=12)
    (tmp_path / "store").mkdir()
    (data / "annotations.json").rename(tmp_path / "store" / "0a1b.json")
    (data / "annotations.json").symlink_to(tmp_path / "store" / "0a1b.json")
    assert run(monkeypatch, "labels", data / "annotations.json", "--labels", "all", "--out", tmp_path / "lists") == 0
    assert len((tmp_path / "lists" / "labels-all.txt").read_text().splitlines()) >= 5


def test_a_failed_unit_leaves_the_others(
    pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = pidray(train=9, test=1), tmp_path / "out"
    args = ("--ckpt", "random", "--ckpt", pretrained(tmp_path / "big"), "--data", data, "--out", out, *TINY)
    advance = FineTuning.advance

    def fails(tuning: FineTuning, batch: Any) -> dict[str, float]:
        if tuning.detector.state_dict()["backbone.trunk.conv1.weight"].std() > 0.5:
            raise click.ClickException("out of memory; lower --batch-size")
        return advance(tuning, batch)

    weights = SDANet("resnet18", 16).state_dict()
    save_tensors(tmp_path / "big" / "backbone.pth", {**weights, "trunk.conv1.weight": torch.randn(64, 3, 7, 7)})
    monkeypatch.setattr(FineTuning, "advance", fails)
    assert run(monkeypatch, *args) == 3
    error = capsys.readouterr().err
    assert "1 fine-tuning(s) failed" in error and "Traceback" not in error
    metrics = valid_metrics(out)
    told = {"reason": "out of memory; lower --batch-size", "command": metrics["command"]}
    assert metrics["failed"] == [{"arm": "big", "labels": "8", "seed": 0, **told}]
    assert [unit["arm"] for unit in metrics["units"]] == ["random"]
    assert "out of memory" in (out / "report.html").read_text()
    monkeypatch.setattr(FineTuning, "advance", advance)
    failed = valid_metrics(out)["failed"]
    alone = (*args[4:], "--ckpt", pretrained(tmp_path / "third"))
    assert run(monkeypatch, *alone) == 0 and valid_metrics(out)["failed"] == failed, "what failed before is still told"
    assert run(monkeypatch, *args) == 0 and not valid_metrics(out)["failed"]


def test_evaluations_merge(
    pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, one, two, both = pidray(train=9, test=1), tmp_path / "one", tmp_path / "two", tmp_path / "both"
    base = ("--data", data, *TINY, "--arch", "resnet18")
    assert run(monkeypatch, "--ckpt", "random", "--out", one, *base) == 0
    assert run(monkeypatch, "--ckpt", pretrained(tmp_path / "a"), "--out", two, *base) == 0
    capsys.readouterr()
    assert run(monkeypatch, "report", one, two, "--out", both) == 0
    assert capsys.readouterr().out.strip() == str(both / "report.html")
    metrics = valid_metrics(both)
    assert set(metrics["arms"]) == {"random", "a"} and len(metrics["units"]) == 2
    assert "a" in metrics["comparison"]["8"]["bbox"]["differences"]
    assert run(monkeypatch, "--ckpt", "random", "--out", tmp_path / "other", *base, "--size", "96") == 0
    capsys.readouterr()
    assert run(monkeypatch, "report", one, tmp_path / "other", "--out", tmp_path / "no") == 1
    assert "(size 96, there 64); only evaluations alike" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert run(monkeypatch, "report", tmp_path, "--out", tmp_path / "no") == 1
    assert "no finished evaluation" in capsys.readouterr().err
    for lost, message in (
        (one / "random/8/seed-0/easy", "seed-0: its results files are gone"),
        (one / "random/8/seed-0/easy/results.bbox.json", "seed-0: its results files are gone"),
        (two / "truth", "is missing, and with it what is scored against"),
    ):
        lost.rename(tmp_path / "lost")
        assert run(monkeypatch, "report", two, one, "--out", tmp_path / "no") == 1
        assert message in capsys.readouterr().err
        (tmp_path / "lost").rename(lost)


def test_lost_and_torn_files_are_made_anew(
    pidray: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    args = ("--ckpt", "random", "--data", pidray(train=9, test=1), "--out", out, *TINY[2:], "--labels")
    assert run(monkeypatch, *args, "8") == 0
    unit = out / "random" / "8" / "seed-0"
    before, log = (unit / "easy" / "results.bbox.json").read_text(), (unit / "log.jsonl").stat().st_mtime_ns
    metrics = valid_metrics(out)
    for lost in (("easy/results.bbox.json",), ("easy/results.bbox.json", "detector.pth")):
        for name in lost:
            (unit / name).unlink()
        assert run(monkeypatch, *args, "8") == 0
        assert (unit / "easy" / "results.bbox.json").read_text() == before and (unit / "detector.pth").is_file()
        assert valid_metrics(out)["comparison"] == metrics["comparison"]
        assert (lost[-1] == "detector.pth") is ((unit / "log.jsonl").stat().st_mtime_ns != log), "trained if need be"
    capsys.readouterr()
    for torn, remedy in (
        (out / "truth" / "easy.json", ""),
        (out / "metrics.json", ""),
        (unit / "metrics.json", "delete it to have the unit scored anew"),
        (unit / "easy" / "results.bbox.json", "delete it and evaluate again"),
    ):
        torn.write_bytes(torn.read_bytes()[:-9])
        if remedy:
            assert run(monkeypatch, *args, "8") == 1
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith(f"Error: {torn}: not valid JSON") and error.endswith(f"; {remedy}")
            torn.unlink()
        assert run(monkeypatch, *args, "8") == 0
        assert valid_metrics(out)["comparison"] == metrics["comparison"]
    (unit / "easy" / "results.bbox.json").unlink()
    assert run(monkeypatch, *args, "4") == 0
    assert list(valid_metrics(out)["comparison"]["4"]) == ["bbox", "segm"]
    assert f"left out, as results of it are gone from {unit}" in caplog.text


def test_arms_that_join_later_keep_their_names_apart(
    pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = pidray(train=9, test=1), tmp_path / "out"
    first, second = (pretrained(tmp_path / name) for name in ("run", "other-run"))
    (tmp_path / "others").mkdir()
    second = second.rename(tmp_path / "others" / "run")
    base = ("--data", data, "--out", out, *TINY[2:])
    for labels, arms in (("8", (first,)), ("4", (second,)), ("4", ("random", second, first))):
        given = [word for arm in arms for word in ("--ckpt", arm)]
        assert run(monkeypatch, *given, *base, "--labels", labels) == 0
    metrics = valid_metrics(out)
    assert {name: arm["source"] for name, arm in metrics["arms"].items()} == {
        **{"run": str(first / "backbone.pth"), "run-2": str(second / "backbone.pth"), "random": "random"}
    }
    units = {(unit["arm"], unit["labels"]) for unit in metrics["units"]}
    assert units == {("run", "8"), ("run-2", "4"), ("random", "4"), ("run", "4")}
    save_tensors(first / "backbone.pth", {**SDANet("resnet18", 16).state_dict(), "trunk.bn1.bias": torch.ones(64)})
    capsys.readouterr()
    assert run(monkeypatch, "--ckpt", first, *base, "--labels", "2") == 1
    assert "its arm run is of other weights than" in capsys.readouterr().err


@pytest.mark.parametrize("on", ["test", "val"])
def test_labels_lists_what_run_trains_on(
    on: Literal["test", "val"], pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pidray(train=20, test=2)
    for number in range(10):  # what is like a scored scan is not learnt: none of these for easy, some for val
        shutil.copy(data / "easy" / "xray_easy00000.png", data / "train" / f"xray_train{number:05}.png")
    monkeypatch.chdir(data / "annotations")
    assert run(monkeypatch, "labels", "xray_train.json", "--labels", "all", "--on", on, "--out", tmp_path) == 0
    listed = (tmp_path / "labels-all.txt").read_text().split()
    assert 0 < len(listed) < 18
    assert listed == [f"./train/{scan.path.name}" for scan in load_data(data, ["all"], 0, on).train]


def test_foreign_results_are_checked(
    lone_json: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = lone_json(scans=6)
    truth = json.loads((data / "annotations.json").read_text())
    good = [
        {**{key: one[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.5} for one in truth["annotations"]
    ]
    cases: list[tuple[Any, str]] = [
        ({"a": 1}, "a list of detections"),
        ([*good, {**good[0], "image_id": 999}], "image_id 999 is no image"),
        ([{**good[0], "category_id": "Gun"}], "category_id Gun is no category"),
        ([{**good[0], "score": float("nan")}], "score is no finite number"),
        ([{**good[0], "score": int("9" * 400)}], "score is no finite number"),
        ([{**good[0], "bbox": [1, 2, -3, 4]}], "bbox is not"),
        ([{**good[0], "segmentation": {"size": [9, 9], "counts": "x"}}], "no RLE of the image's size"),
        (good, ""),
    ]
    for number, (value, message) in enumerate(cases):
        file = tmp_path / f"theirs{number}.json"
        file.write_text(json.dumps(value))
        out = tmp_path / f"out{number}"
        code = run(monkeypatch, "--eval-only", "--ckpt", file, "--data", data, "--out", out, "--device", "cpu")
        error = capsys.readouterr().err
        assert (code, message in error, "Traceback" in error) == (1 if message else 0, True, False), error
    scores = valid_metrics(out)["units"][0]["scores"]["bbox"]["test"]["overall"]
    assert scores["AP"] == pytest.approx(1.0), "a lone json is the test split, whole"


@pytest.mark.parametrize("masks", [False, True])
def test_masks_of_others_are_scored_where_there_are_masks_to_score_by(
    masks: bool, lone_json: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = lone_json(scans=6, masks=masks)
    truth = COCO(str(data / "annotations.json"))
    for arm in ("one", "two"):
        results = []
        for id, thing in truth.anns.items():
            size = truth.imgs[thing["image_id"]]["height"], truth.imgs[thing["image_id"]]["width"]
            mask = truth.annToMask(thing) if masks else np.ones(size, np.uint8)
            shape = {"size": size, "counts": coco_mask.encode(np.asfortranarray(mask))["counts"].decode()}
            box = {} if masks else {"bbox": thing["bbox"]}  # masks alone
            if arm == "one" or id % 2:
                kept = {key: thing[key] for key in ("image_id", "category_id")}
                results.append({**kept, **box, "segmentation": shape, "score": 0.5})
        (tmp_path / f"{arm}.json").write_text(json.dumps(results))
    given = [word for arm in ("one", "two") for word in ("--ckpt", tmp_path / f"{arm}.json")]
    out = tmp_path / "out"
    assert run(monkeypatch, "--eval-only", *given, "--data", data, "--out", out, "--device", "cpu") == 0
    assert [set(unit["scores"]) for unit in valid_metrics(out)["units"]] == [{"segm" if masks else "bbox"}] * 2
    assert "data:image/jpeg" in (out / "report.html").read_text()


def test_mistakes_are_one_line(
    pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = pidray(train=2, test=1), tmp_path / "out"
    good = pretrained(tmp_path / "good")
    other = pretrained(tmp_path / "other", width=64)
    wide = pretrained(tmp_path / "wide", width="many")
    listed = pretrained(tmp_path / "listed", arch=["resnet18"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("segloc_synth.phantom.default_phantom", lambda **_: pytest.fail("scans are simulated"))
    full = tmp_path / "full"
    full.mkdir()
    (full / "letter.txt").write_text("mine")
    torn = pretrained(tmp_path / "torn")
    (torn / "backbone.pth").write_bytes((torn / "backbone.pth").read_bytes()[:5000])
    base = ["--data", str(data), *TINY]
    cases: list[tuple[list[str | Path], int, str]] = [
        ([*base, "--ckpt", "nowhere", "--out", out], 1, "nowhere: no such file or folder"),
        ([*base, "--ckpt", full, "--out", out], 1, "no backbone.pth or detector.pth in it"),
        ([*base, "--ckpt", torn, "--out", out], 1, "backbone.pth: refused"),
        ([*base, "--ckpt", good, "--ckpt", other, "--out", out], 1, "width 64, but"),
        ([*base, "--ckpt", good, "--width", "32", "--out", out], 1, "the command line says 32"),
        ([*base, "--ckpt", "random", "--out", full], 1, "folder is not empty"),
        ([*TINY, "--ckpt", "random", "--out", full], 1, "folder is not empty"),  # before it simulates scans
        ([*TINY, "--ckpt", "random", "--labels", "0%", "--out", out], 2, "--labels '0%': a share"),
        ([*base, "--ckpt", "random", "--samples", "9", "--out", out], 2, "--samples is instead of --epochs"),
        ([*base, "--ckpt", "random", "--arch", "vgg", "--out", out], 1, "arch 'vgg' is unknown; the nearest are vgg"),
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
    args = ("--ckpt", "random", "--data", data, "--out", out, "--labels", "all", *TINY[2:], "--epochs", "1")
    assert run(monkeypatch, *args, "--strict") == 1
    problem = "1 skipped: image file of zero bytes: images/xray_images00003.png image s3"
    error = capfd.readouterr().err
    assert problem in error and "Traceback" not in error and not out.exists()
    assert run(monkeypatch, *args) == 0
    printed = capfd.readouterr()
    assert printed.out.strip() == str(out / "report.html")
    assert printed.err.splitlines()[-1].startswith(f"{data}: {problem}; ")
    assert "zero bytes" in (out / "problems.json").read_text()
    unit = out / "random" / "all" / "seed-0"
    results = json.loads((unit / "test" / "results.bbox.json").read_text())
    names = {image["id"] for image in annotations["images"]}
    assert results and {result["image_id"] for result in results} <= names
    trained = (out / "labels-all.txt").read_text().split()
    assert len(trained) == 8 and all(name.startswith("./images/") for name in trained)
    # the same folder, other data: what is done belongs to the old ones
    (data / "annotations.json").write_text(json.dumps(annotations, indent=1))
    assert run(monkeypatch, *args) == 1
    expected = f"Error: {unit / 'metrics.json'}: made with other data than {data} holds now; name another --out"
    assert capfd.readouterr().err.strip() == expected


def test_real_boxes(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """67 real scans of four scanners, boxes only, a few steps."""
    source, out = scans / "xray6dom_boxes", tmp_path / "out"
    args = ("--ckpt", "random", "--data", source, "--out", out, "--labels", "16", "--epochs", "1", "--width", "16")
    assert run(monkeypatch, *args, "--size", "96", "--device", "cpu", "--seeds", "1") == 0
    metrics = valid_metrics(out)
    counts = metrics["data"]["scans"]
    assert counts["train"] == 16 and 20 <= counts["test"] <= 30 and not metrics["data"]["masks"]
    (unit,) = metrics["units"]
    assert list(unit["scores"]) == ["bbox"] and list(unit["scores"]["bbox"]) == ["test"]
    assert len(unit["scores"]["bbox"]["test"]["per_class"]) == 10
    assert not list(out.rglob("results.segm.json"))


def test_an_arm_has_a_name_that_can_be_a_folder(tmp_path: Path) -> None:
    names = [
        "config.json.pth",
        "..pth",
        "a\nb.pth",
        "random.pth",
        "truth.pth",
        "b/seed-0/backbone.pth",
        "c/8/seed-1/detector.pth",
    ]
    arms: list[Arm] = []
    for name in names:
        arms.append(Arm(free_name(tmp_path / name, arms), "", None))
    assert [arm.name for arm in arms] == ["config_json", "arm", "a_b", "random-2", "truth-2", "seed-0", "c"]
