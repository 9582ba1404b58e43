"""The probe: its figures are what they claim to be, it sees what is there, and nothing where nothing is."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.conftest import draw_scan, save, uncompressed

from segloc_synth.cli import cli
from segloc_synth.realism import matching, probe
from segloc_synth.realism.crops import Crop, Trial, trials
from segloc_synth.realism.features import describe
from segloc_synth.realism.matching import Found
from segloc_synth.sources.images import EXIF_ORIENTATION

ENTRIES = st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 3)), min_size=1)


@given(ENTRIES)
def test_auc_is_the_share_of_pairs_in_order(entries: list[tuple[int, int, int]]) -> None:
    scores, labels, weights = (np.array(column) for column in zip(*entries, strict=True))
    won = total = 0.0
    for score, label, weight in entries:
        for other, other_label, other_weight in entries:
            if label == 1 and other_label == 0:
                total += weight * other_weight
                won += weight * other_weight * (1.0 if score > other else 0.5 if score == other else 0.0)
    assert probe.auc(scores / 3, labels, weights) == pytest.approx(won / total if total else 0.5)


KEYS = st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=3).map(tuple), min_size=1, max_size=40)


@given(KEYS, st.integers(0, 5))
def test_no_bag_lies_in_two_folds(keys: list[tuple[str, ...]], seed: int) -> None:
    groups = matching.group(keys)
    folds = matching.fold(groups, np.random.default_rng(seed), 3)
    fold_of: dict[str, int] = {}
    for entry, fold in zip(keys, folds, strict=True):
        assert {fold_of.setdefault(key, fold) for key in entry} == {fold}
    sizes = np.bincount(folds, minlength=3)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()


def found(name: str, area: int, *keys: str) -> Found:
    return Found(None, name, area, keys, {}, ())


@settings(max_examples=50)
@given(st.integers(0, 1000))
def test_matches_are_alike_and_use_nothing_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def thing(*keys: str) -> Found:
        return found("ab"[rng.integers(2)], int(rng.integers(30, 90)), *keys)

    pool = [thing(f"bag {rng.integers(400)}", f"bag x{rng.integers(400)}") for _ in range(900)]
    ones, others, groups = matching.match(pool, [thing(f"bag y{i}") for i in range(200)], 170)
    assert 150 <= len(ones) == len(others) == len(groups) <= 170
    for one, other in zip(ones, others, strict=True):
        assert one.class_name == other.class_name
        assert abs(np.log(one.area / other.area)) <= matching.CALIPER
    keys = [key for item in [*ones, *others] for key in item.keys]
    assert len(keys) == len(set(keys))
    assert len(set(groups)) == len(groups)


def draw_crop(rng: np.random.Generator, noise: float) -> Crop:
    """A smooth blob on a smooth ground, with the ground's fine noise; `noise` grey levels in place of it inside."""
    pixels = cv2.GaussianBlur(rng.normal(0, 200, (64, 64, 3)), (0, 0), 6) + 170
    mask = np.zeros((64, 64), np.uint8)
    cv2.ellipse(mask, (32, 32), (int(rng.integers(8, 16)), int(rng.integers(5, 12))), 30, 0, 360, 1, -1)
    pixels -= 60 * cv2.GaussianBlur(mask.astype(float), (0, 0), 0.8)[..., None]
    pixels += rng.normal(0, np.where(mask, noise, 2.0)[..., None], pixels.shape)
    return Crop(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mask)


def draw_trial(noise: float, paired: bool, count: int = 80) -> Trial:
    rng = np.random.default_rng(5)
    ones, others = ([draw_crop(rng, level) for _ in range(count)] for level in (noise, 2.0))
    groups = np.tile(np.arange(count) // 2, 2)
    return Trial("drawn", ones, others, paired, groups, matching.fold(groups, rng))


@pytest.mark.parametrize("paired", [pytest.param(False, marks=pytest.mark.slow), True])
def test_noise_of_another_strength_is_found(paired: bool) -> None:
    verdicts = probe.linear(draw_trial(4.0, paired))
    assert verdicts["all"].low > 0.9
    assert verdicts["noise"].auc > 0.95


@pytest.mark.parametrize("paired", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_crops_of_one_kind_are_not_told_apart(paired: bool) -> None:
    verdicts = probe.linear(draw_trial(2.0, paired))
    assert verdicts["all"].low <= 0.5 <= verdicts["all"].high
    assert verdicts["all"].high - verdicts["all"].low < 0.4


def test_features_have_one_length_and_no_infinity() -> None:
    rng = np.random.default_rng(0)
    usual = describe(draw_crop(rng, 2.0))
    dot = np.zeros((64, 64), np.uint8)
    dot[30, 30] = 1
    flat = np.full((64, 64, 3), 255, np.uint8)
    for crop in (Crop(flat, dot), Crop(flat, np.ones_like(dot)), Crop(flat * 0, 1 - dot)):
        for family, values in describe(crop).items():
            assert values.shape == usual[family].shape
            assert not np.isinf(values).any()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A build on 60 drawn bags with 60 drawn discs, hard pasted, and 60 bags with discs of the same make drawn in."""
    folder = tmp_path_factory.mktemp("many")
    for name, first in (("objects", 0), ("real", 200)):
        (folder / name).mkdir()
        images, annotations = [], []
        for number in range(first, first + 60):
            scan, mask = draw_scan(number), np.zeros((120, 140), np.uint8)
            cv2.circle(mask, (60, 60), 12, 1, -1)
            scan[mask == 1] = (30, 60, 150) if name == "real" else (240, 60, 30)
            if name == "real" and number % 2:  # lies on its side, as its EXIF tag says
                exif = Image.Exif()
                exif[EXIF_ORIENTATION] = 6
                Image.fromarray(np.rot90(scan).copy()).save(folder / name / f"{number}.png", exif=exif)
            else:
                save(folder / name / f"{number}.png", scan)
            images.append({"id": number, "file_name": f"{number}.png", "width": 140, "height": 120})
            annotations.append(
                {"id": number, "image_id": number, "category_id": 1, "segmentation": uncompressed(mask), "iscrowd": 0}
            )
        data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "Disc"}]}
        (folder / name / "set.json").write_text(json.dumps(data))
    (folder / "benign").mkdir()
    for number in range(400, 460):
        save(folder / "benign" / f"{number}.png", draw_scan(number))
    args = ["build", "--objects", folder / "objects", "--backgrounds", folder / "benign", "--out", folder / "pairs"]
    args += ["--n", 200, "--size", 128, "--blend", "hard", "--scale", 0.9, 1.1, "--workers", 1]
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return folder / "pairs", folder / "real"


def test_command_tells_red_discs_from_blue_ones(many: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(cli, ["probe", str(many[0]), "--real", str(many[1]), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["composite against real"]["all"]["low"] > 0.9
    assert found["composite against real"]["colour"]["auc"] > 0.95
    control = found["real against real"]["all"]
    assert control["low"] <= 0.5 <= control["high"]
    plain = CliRunner().invoke(cli, ["probe", str(many[0])])
    assert plain.exit_code == 0 and "which region" in plain.stdout and "against" not in plain.stdout


def test_real_objects_lie_under_their_masks(many: tuple[Path, Path]) -> None:
    """Also in scans that are turned upright by their EXIF tags."""
    real = next(trial for trial in trials(*many, 400) if trial.name == "composite against real").others
    colours = np.array([crop.pixels[crop.mask == 1].mean(axis=0) for crop in real])
    assert len(colours) >= 40
    assert np.abs(colours - (30, 60, 150)).max() < 12


def test_a_damaged_picture_names_the_remedy(many: tuple[Path, Path], tmp_path: Path) -> None:
    out = shutil.copytree(many[0], tmp_path / "pairs")
    with (out / "segloc-00000000.tar").open("r+b") as tar:
        for row in json.loads((out / "segloc-00000000.json").read_text())["offsets"]:
            for start in (row[2], row[4]):
                tar.seek(start)
                tar.write(bytes(20))
    result = CliRunner().invoke(cli, ["probe", str(out)])
    told = rf"Error: {re.escape(str(out))}: a picture of pair \d+ is damaged; run segloc-synth verify \S+ --repair\n"
    assert result.exit_code == 1 and re.fullmatch(told, result.output), result.output


def test_too_little_is_said_in_one_line(many: tuple[Path, Path], sources: tuple[Path, Path], tmp_path: Path) -> None:
    args = ["build", "--objects", sources[0], "--backgrounds", sources[1], "--out", tmp_path / "few", "--n", 20]
    assert CliRunner().invoke(cli, [str(arg) for arg in [*args, "--size", 96, "--workers", 1]]).exit_code == 0
    for command, words in (
        (["probe", tmp_path / "few"], "build more pairs"),
        (["probe", many[0], "--real", sources[0]], "name a larger source"),
        (["probe", tmp_path / "none"], "no such folder"),
    ):
        result = CliRunner().invoke(cli, [str(arg) for arg in command])
        assert result.exit_code == 1
        assert words in result.output and len(result.output.splitlines()) == 1, result.output
