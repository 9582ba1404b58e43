"""What was written before an option came is read as ever, and the option at its default changes no identity.

tests/written/ holds files of builds, runs and evaluations as the program of November 2026 wrote them.
"""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from segloc_eval.config import Arm, resolve_arms
from segloc_eval.config import Config as Evaluation
from segloc_eval.mm.model import read_about
from segloc_eval.recipe import RECIPES, Recipe
from segloc_synth.config import FIRST, Config
from segloc_train import config as training
from tests.conftest import ROOT

WRITTEN = ROOT / "tests" / "written"


def read(name: str) -> dict[str, Any]:
    return json.loads((WRITTEN / name).read_text())


@dataclass(frozen=True)
class LaterBuild(Config):
    shine: float = 0.5


@dataclass(frozen=True)
class LaterRecipe(Recipe):
    shine: float = 0.5


@dataclass(frozen=True)
class LaterRun(training.Config):
    shine: float = 0.5


@dataclass(frozen=True)
class LaterEvaluation(Evaluation):
    shine: float = 0.5


def test_a_build_keeps_its_hash_and_a_later_option_enters_it_only_where_it_is_used() -> None:
    written = read("build.json")
    assert Config(**written["config"]).hash == written["config_hash"]
    assert set(written["config"]) == FIRST
    assert LaterBuild(**written["config"]).hash == written["config_hash"]
    assert LaterBuild(**written["config"], shine=0.6).hash != written["config_hash"]


def test_a_recipe_and_an_evaluation_are_those_of_before_while_later_fields_are_at_their_defaults() -> None:
    for value in (read("evaluation.json")["recipe"], read("detector.json")["recipe"]):
        assert Recipe.from_dict(value, "file").as_dict() == value
        later = LaterRecipe.from_dict(value, "file")
        assert isinstance(later, LaterRecipe) and later.shine == 0.5 and later.as_dict() == value
        assert replace(later, shine=0.6).as_dict() == {**value, "shine": 0.6}
    written = read("evaluation.json")
    recipe = LaterRecipe(**asdict(RECIPES["quick"]))
    arms = tuple(Arm(**arm) for arm in written["arms"])
    values = {**written, "arms": arms, "labels": ("8",), "recipe": recipe}
    assert {**LaterEvaluation(**values).as_dict(), "recipe": None} == {**written, "recipe": None}


def test_a_run_goes_on_though_its_config_lacks_a_later_field(monkeypatch: pytest.MonkeyPatch) -> None:
    before = training.stored(WRITTEN / "run.json")
    assert training.as_json(before) == read("run.json")
    monkeypatch.setattr(training, "Config", LaterRun)
    later = training.stored(WRITTEN / "run.json")
    assert isinstance(later, LaterRun) and later.shine == 0.5 and later.arch == before.arch


def test_a_detector_and_a_backbone_of_before_tell_what_they_are(tmp_path: Path) -> None:
    shutil.copy(WRITTEN / "detector.json", tmp_path)
    about = read_about(tmp_path / "detector.pth")
    assert (about.detector, about.recipe.arch, len(about.classes), len(about.learnt)) == (
        "faster-rcnn",
        "resnet18",
        12,
        2,
    )
    written = read("detector.json")
    (tmp_path / "detector.json").write_text(json.dumps({k: v for k, v in written.items() if k != "learnt"}))
    assert read_about(tmp_path / "detector.pth").learnt == frozenset()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "backbone.pth").write_bytes(b"weights")
    for about in (read("meta.json"), {}):
        (tmp_path / "run" / "meta.json").write_text(json.dumps(about))
        (arm,), told = resolve_arms((str(tmp_path / "run"),), None, None)
        assert arm.name == "run" and told == ({"arch": "resnet18", "width": 64} if about else {})
