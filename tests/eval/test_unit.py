"""A unit of work as its user meets it: killed and gone on with, on several ranks, as an arm, on anybody's pictures."""

import json
import pickle
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from tests.conftest import Forked
from tests.eval.conftest import signalled
from tests.eval.test_model import Hostile

from segloc_eval.data.datasets import Data, load_data
from segloc_eval.mm.ranks import failing_together, gather_json
from segloc_eval.recipe import QUICK, DetectorName, Recipe
from segloc_eval.run import unit as module
from segloc_eval.run.detect import predict_folder
from segloc_eval.run.learnt import accept_learnt
from segloc_eval.run.unit import Unit, eval_detector, run_unit
from segloc_synth.sources.problems import faults
from segloc_train.dist import ALONE, joined
from segloc_train.model.checkpoint import load_tensors, save_tensors

pytestmark = pytest.mark.usefixtures("one_thread", "thin")
CPU = torch.device("cpu")
TINY = QUICK.changed(arch="resnet18", width=16, size=64, epochs=6, lr=1e-3)
UNIT = Unit("all", "random", "random", None, 0)
Make = Callable[..., Path]


def read(folder: Path) -> Data:
    return load_data(folder, ["all"], 0)


def run(data: Path, out: Path, recipe: Recipe = TINY, name: DetectorName = "faster-rcnn", unit: Unit = UNIT) -> Any:
    return run_unit(unit, read(data), recipe, name, out, ALONE, CPU)


def alone(data: Path, out: Path, recipe: Recipe, name: DetectorName) -> None:
    """Run the unit in this process, saving after each step; one of several ranks where the environment says so."""
    module.SAVE_EVERY = 0.0
    with joined(CPU) as world:
        run_unit(UNIT, read(data), recipe, name, out, world, CPU)


def same_end(out: Path, other: Path) -> None:
    assert (out / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
    first, second = (load_tensors(folder / "detector.pth") for folder in (out, other))
    assert first.keys() == second.keys() and all(torch.equal(x, second[name]) for name, x in first.items())
    for path in other.rglob("results.*.json"):
        assert (out / path.relative_to(other)).read_text() == path.read_text()


def test_a_killed_unit_goes_on_with_the_same_curve(pidray: Make, tmp_path: Path) -> None:
    data = pidray(train=11, test=2)
    entry = run(data, tmp_path / "whole")
    assert entry["training"]["steps"] == 7 and entry["training"]["samples"] == 56 and entry["scans"] == 10
    out = tmp_path / "out"
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        assert signalled(3, number, tmp_path / "told", alone, data, out, TINY, "faster-rcnn") == code
        assert (out / "last.pt").is_file() and not (out / "detector.json").exists()
    assert len((out / "log.jsonl").read_text().splitlines()) == 2 + 3
    again = run(data, out)
    same_end(out, tmp_path / "whole")
    assert not (out / "last.pt").exists() and again["training"]["seconds"] > 0
    ended = [again["training"][name] for name in ("first_loss", "last_loss", "samples")]
    assert ended == [entry["training"][name] for name in ("first_loss", "last_loss", "samples")]
    before = (out / "detector.pth").stat().st_mtime_ns
    assert run(data, out) == again and (out / "detector.pth").stat().st_mtime_ns == before, "done is done"
    with pytest.raises(click.ClickException, match=r"detector\.json: is of other data or options"):
        run(data, out, TINY.changed(lr=1e-4))


class Killed(BaseException):
    pass


def test_no_moment_is_a_bad_one_to_be_killed(pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, recipe = pidray(train=8, test=1), TINY.changed(epochs=3)
    run(data, tmp_path / "whole", recipe)

    def killed(*args: object, **kwargs: object) -> None:
        raise Killed

    def killed_at_the_second(path: Path, tensors: Any) -> None:
        saved.append(path)
        killed() if len(saved) == 2 else save_tensors(path, tensors)

    saved: list[Path] = []
    for moment in ("before the state", "inside a line", "before the mark", "testing"):
        out = tmp_path / moment
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(module, "SAVE_EVERY", 0.0)
            if moment == "testing":
                patch.setattr(module, "predict_shared", killed)
            elif moment == "before the mark":
                patch.setattr(module, "write_json", killed)
            else:
                saved.clear()
                patch.setattr(module, "save_tensors", killed_at_the_second)
            run(data, out, recipe)
        if moment == "inside a line":
            with (out / "log.jsonl").open("a") as file:
                file.write('{"step": 3, "samp')
        run(data, out, recipe)
        same_end(out, tmp_path / "whole")


def test_a_state_of_another_unit_is_one_line(pidray: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = pidray(train=8, test=1), tmp_path / "out"
    out.mkdir()
    trap, last = tmp_path / "sprung", out / "last.pt"
    monkeypatch.setattr("mmengine.runner.checkpoint.load_checkpoint", None)
    monkeypatch.setattr("mmengine.runner.checkpoint._load_checkpoint", None)
    states: list[tuple[Any, str]] = [
        (b"torn", "refused"),
        (pickle.dumps({"unit": Hostile(trap)}), "refused"),
        ({"unit": "another"}, "is not the state of this unit; name another --out"),
        ({"unit": None, "a": Hostile(trap)}, "refused"),
        ({"unit": module._identity(UNIT, read(data), TINY, "faster-rcnn"), "step": 1}, "delete it to start"),
    ]
    for state, reason in states:
        if isinstance(state, bytes):
            last.write_bytes(state)
        else:
            torch.save(state, last)
        with pytest.raises(click.ClickException, match=reason) as error:
            run(data, out)
        assert str(last) in error.value.message and "\n" not in error.value.message
    assert not trap.exists()


@pytest.mark.parametrize("name", ["mask-rcnn", pytest.param("semantic-fpn", marks=pytest.mark.slow)])
def test_two_ranks_share_scans_and_batches(pidray: Make, tmp_path: Path, name: DetectorName) -> None:
    """Each normalises its own half, so losses are only near: in evaluation mode both would compute the same."""
    data, recipe = pidray(train=18, test=3), TINY.changed(batch_size=16, epochs=3)
    run(data, tmp_path / "one", recipe, name)
    out = tmp_path / "two"
    told = [rank.end() for rank in Forked.ranks(tmp_path, alone, data, out, recipe, name)]
    assert [code for code, _ in told] == [0, 0], told
    first, second = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (out, tmp_path / "one")
    )
    assert len(first) == len(second) == 3
    assert first[0]["loss"] == pytest.approx(second[0]["loss"], rel=0.1)
    assert all(np.isfinite(list(record.values())).all() for record in first)
    kinds = ("semantic",) if name == "semantic-fpn" else ("bbox", "segm")
    for split in ("easy", "hard", "hidden"):
        for kind in kinds:
            found = json.loads((out / split / f"results.{kind}.json").read_text())
            assert {result["image_id"] for result in found} <= {0, 1, 2}
            if kind != "semantic":
                assert len({result["image_id"] for result in found}) == 3
    # the weights that both ranks ended with, tested by one: the same results
    entry = eval_detector(out, read(data), tmp_path / "again", ALONE, CPU)
    assert entry["testing"]["scans"] == 9 and entry["detector"] == name
    for path in (tmp_path / "again").rglob("results.*.json"):
        assert json.loads(path.read_text()) == json.loads((out / path.relative_to(tmp_path / "again")).read_text())


def failing() -> None:
    with joined(CPU) as world:
        try:
            with failing_together(world):
                if world.rank == 1:
                    raise click.ClickException("out of memory")
        except click.ClickException as error:
            print(error.message)
        with failing_together(world):
            pass
        print(gather_json([world.rank] * (3 + world.rank), world))


def test_what_one_rank_cannot_do_none_goes_on_with(tmp_path: Path) -> None:
    told = [rank.end() for rank in Forked.ranks(tmp_path, failing)]
    assert told == [(0, "out of memory\n[[0, 0, 0], [1, 1, 1, 1]]\n")] * 2


def test_a_unit_starts_from_another_ones_detector(pidray: Make, tmp_path: Path) -> None:
    data = pidray(train=8, test=1)
    run(data, tmp_path / "a", TINY.changed(epochs=2))
    arm = replace(UNIT, arm="composites", source=str(tmp_path / "a" / "detector.pth"), sha256="0" * 64)
    entry = run(data, tmp_path / "b", TINY.changed(epochs=1), unit=arm)
    assert (
        entry["training"]["first_loss"] < json.loads((tmp_path / "a" / "log.jsonl").read_text().split("\n")[0])["loss"]
    )
    about = json.loads((tmp_path / "b" / "detector.json").read_text())
    assert about["sha256"] == "0" * 64 and about["entry"] == entry and "torch" in about["versions"]
    assert set(asdict(arm)) >= {"arm", "labels", "seed"} and entry["arm"] == "composites"


def test_what_a_detector_learnt_from_is_no_test(pidray: Make, tmp_path: Path) -> None:
    """Wherever the scans lie, and under whatever names; data without splits are scored whole."""
    data = pidray(train=8, test=2)
    run(data, tmp_path / "unit")
    moved = tmp_path / "moved"
    moved.mkdir()
    labels = json.loads((data / "annotations" / "xray_train.json").read_text())
    for image in labels["images"]:
        shutil.copy(data / "train" / image["file_name"], moved / f"my_{image['file_name']}")
        image["file_name"] = f"my_{image['file_name']}"
    (moved / "scans.json").write_text(json.dumps(labels))
    whole = load_data(moved, [], 0, eval_only=True)
    with pytest.raises(click.ClickException, match=r"learnt from \d of the 8 scans that are to be scored, such as"):
        eval_detector(tmp_path / "unit", whole, tmp_path / "scores", ALONE, CPU)
    assert not (tmp_path / "scores").exists()
    # nor where another fine-tuning went on from it
    shutil.copytree(data, tmp_path / "others")
    for path in (tmp_path / "others" / "train").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    later = replace(UNIT, source=str(tmp_path / "unit" / "detector.pth"))
    run(tmp_path / "others", tmp_path / "later", unit=later)
    with pytest.raises(click.ClickException, match="learnt from"):
        accept_learnt(str(tmp_path / "later"), whole)
    accept_learnt(str(tmp_path / "later"), read(tmp_path / "others"))


@pytest.mark.parametrize("name", ["cascade-mask-rcnn", "semantic-fpn"])
def test_anybodys_pictures(pidray: Make, tmp_path: Path, name: DetectorName) -> None:
    data = pidray(train=8, test=2)
    run(data, tmp_path / "unit", TINY.changed(epochs=4, lr=3e-3), name)
    images = tmp_path / "images"
    (images / "deep").mkdir(parents=True)
    shutil.copy(data / "easy" / "xray_easy00000.png", images / "one.png")
    shutil.copy(data / "hard" / "xray_hard00001.png", images / "deep" / "one.png")
    (images / "torn.png").write_bytes((images / "one.png").read_bytes()[:400])
    (images / "notes.txt").write_text("no picture")
    Image.new("L", (50, 400), 200).save(tmp_path / "grey.jpg")
    out = tmp_path / "out"
    problems = predict_folder(tmp_path / "unit", [images, tmp_path / "grey.jpg"], out, CPU)
    assert len(problems) == 2 and [problem.file for problem in faults(problems)] == [str(images / "torn.png")]
    about = json.loads((out / "images.json").read_text())
    assert [image["file_name"] for image in about["images"]] == [
        str(path) for path in (images / "deep" / "one.png", images / "one.png", tmp_path / "grey.jpg")
    ]
    assert (about["images"][2]["width"], about["images"][2]["height"]) == (50, 400)
    assert [category["name"] for category in about["categories"]] == ["Baton", "Scissors", "Gun"]
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["1_one.jpg", "2_one.jpg", "3_grey.jpg"]
    assert all(Image.open(path).size[0] > 40 for path in (out / "pictures").iterdir())
    for kind in ("semantic",) if name == "semantic-fpn" else ("bbox", "segm"):
        results = json.loads((out / f"results.{kind}.json").read_text())
        assert {result["image_id"] for result in results} <= {1, 2, 3}
        if kind != "semantic":
            assert results and COCO(str(out / "images.json")).loadRes(str(out / f"results.{kind}.json")).getAnnIds()
    with pytest.raises(click.ClickException, match="folder is not empty; name another --out"):
        predict_folder(tmp_path / "unit", [images], out, CPU)
    for bad, reason in ((tmp_path / "nowhere", "no such file or folder"), (images / "torn.png", "no picture that can")):
        with pytest.raises(click.ClickException, match=reason):
            predict_folder(tmp_path / "unit" / "detector.pth", [bad], tmp_path / "other", CPU)
    assert not (tmp_path / "other").exists()
