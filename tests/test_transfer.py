"""The transfer experiments' runner: commands as typed, costs, stops, records, and what tables make of them."""

import fcntl
import json
import os
import platform
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import pytest
from benchmarks.transfer import charts, records
from benchmarks.transfer.__main__ import main
from benchmarks.transfer.arms import CPU, GPU, Arm, Experiment, Profile, Start
from benchmarks.transfer.commands import Runner, Stopped
from benchmarks.transfer.experiments import EXPERIMENTS, RANDOM, SEGLOC
from benchmarks.transfer.stages import Stages, Unit
from benchmarks.transfer.tables import Estimate, columns, costs, difference, processor_hours, table
from click.testing import CliRunner

from segloc_synth.cli_build import build_command
from segloc_train.cli import command
from segloc_train.config import resolve

SMALL = ("--arch", "resnet18", "--width", "64")
TINY = Profile(128, SMALL, ("--batch-size", "16"), 48, 1, "mask-rcnn", 16, 16, 120, 30)
PROBE = Experiment("probe", "?", (SEGLOC,), ("50%",), 2, on="val", base="segloc", probe=True)
TOOL = """#!/bin/sh
echo "$0 $@" >> "$CALLS"
[ "$1" = probe ] && echo '{"which region": {"all": {"auc": 0.9}}}' && echo 'few bags' >&2 && exit
for last; do :; done
mkdir -p "$last"
echo '{}' > "$last/config.json"
case "$*" in *"$FAIL"*) echo started; echo "Error: no disk left"; exit 1;; esac
trap 'echo saved; exit 130' INT
for i in $(seq "$SLOW"); do sleep 0.2; done
echo '{"knn_accuracy": 0.25, "held_out_accuracy": 0.5}' > "$last/log.jsonl"
echo '{"easy": 0.75}' > "$last/neighbours.json"
echo '{"units": [{"scores": {}}]}' > "$last/metrics.json"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that write a folder and say how they were called."""
    (tmp_path / "bin").mkdir()
    for name in ("segloc-synth", "segloc-train", "segloc-eval", "python"):
        (tmp_path / "bin" / name).write_text(TOOL)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name, value in (("CALLS", str(tmp_path / "calls")), ("FAIL", "nothing"), ("SLOW", "0")):
        monkeypatch.setenv(name, value)
    return tmp_path / "calls"


def stages(work: Path, seconds: float = 600) -> Stages:
    return Stages(Runner(work, 1, time.monotonic() + seconds), TINY, "cpu")


def test_units_share_their_commands_and_do_none_twice(calls: Path, tmp_path: Path) -> None:
    work, other = tmp_path / "work", Arm("moco", train=("--method", "moco"))
    units = [Unit(PROBE, SEGLOC, "50%", 0), Unit(PROBE, other, "50%", 0)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(stages(work).unit, units))
    made = calls.read_text().splitlines()
    words = ("phantom", "labels /", "build", "--shards", "--ckpt")
    assert [sum(word in line for line in made) for word in words] == [1, 1, 1, 2, 2]
    curves = {"knn_accuracy": [0.25], "held_out_accuracy": [0.5]}
    assert found[0]["pretraining"] == {**curves, "scan_knn": {"easy": 0.75}}
    assert set(found[0]["cost"]) == {"simulate", "labels", "synthesis", "pretraining", "neighbours"}
    assert found[0]["cost"]["pretraining"]["peak_bytes"] > 1e5
    assert stages(work).unit(units[0]) == found[0]
    assert len(calls.read_text().splitlines()) == len(made)
    # Typed by hand in another folder, they are the same.
    programs = [line.split()[0] for line in found[0]["commands"]]
    assert programs == ["segloc-synth", "segloc-eval", "segloc-synth", "segloc-train", "python"]
    assert str(work) not in " ".join(found[0]["commands"])


def test_a_curve_that_pairs_of_few_scans_do_not_have_is_left_empty(calls: Path, tmp_path: Path) -> None:
    unit = Unit(PROBE, SEGLOC, "50%", 0)
    stages(tmp_path / "work").unit(unit)
    (log,) = (tmp_path / "work").rglob("run-*/log.jsonl")
    log.write_text('{"loss": 1.0}\n{"knn_accuracy": 0.25}\n')
    told = stages(tmp_path / "work").unit(unit)["pretraining"]
    assert (told["knn_accuracy"], told["held_out_accuracy"]) == ([0.25], [])


@pytest.mark.parametrize("start", ["random", "pretrained", "composites", "pretrained, then composites", "backbone"])
def test_labels_count_once(calls: Path, tmp_path: Path, start: Start) -> None:
    unit = Unit(replace(PROBE, probe=False), Arm("it", start), "50%", 3)
    commands = [line.split() for line in stages(tmp_path / "work").unit(unit)["commands"]]

    def told(flag: str) -> list[str]:
        return [line[line.index(flag) + 1] for line in commands if flag in line]

    assert set(told("--labels")) == {"50%"} and told("--labels"), "synthesis has those that fine-tuning has"
    assert len({line[line.index("--seed") + 1] for line in commands if "--labels" in line}) == 1
    lists = [line[-1] for line in commands if line[1] == "labels"]
    assert [str(Path(images).parent) for images in told("--images") if images.endswith(".txt")] == lists
    assert len(lists) == (start != "random")
    assert sum(path.endswith("/backbone.pth") for path in told("--ckpt")) == 2 * (start == "backbone")
    ceiling = replace(unit, arm=Arm("more", start, labels="100%"))
    more = [line.split() for line in stages(tmp_path / "work").unit(ceiling)["commands"]]
    assert [line for line in more if line not in commands] == [more[-1]] and "100%" in more[-1]


@pytest.mark.parametrize(
    ("kind", "names"), [("own", ["sixray_masks", "sixray_negatives"]), ("simulated", ["pidray", "sixray"])]
)
def test_real_scans_have_pairs_of_real_or_simulated_ones(
    calls: Path, tmp_path: Path, kind: Literal["own", "simulated"], names: list[str]
) -> None:
    unit = Unit(replace(PROBE, real=True), Arm("it", objects=kind, backgrounds=kind), "all", 0)
    commands = [line.split() for line in stages(tmp_path / "work").unit(unit)["commands"]]
    (build,) = (line for line in commands if line[1] == "build")
    assert [Path(build[build.index(flag) + 1]).name for flag in ("--objects", "--backgrounds")] == names


def test_where_blends_are_compared_a_classifier_looks_for_the_paste(calls: Path, tmp_path: Path) -> None:
    unit = Unit(replace(PROBE, look_at_pairs=True), SEGLOC, "50%", 0)
    found = stages(tmp_path / "work").unit(unit)
    assert found["pretraining"]["paste_auc"] == 0.9
    assert [line.split()[1] for line in calls.read_text().splitlines()][-1] == "probe"
    assert found["commands"][-1].endswith("--json"), "as typed it prints"
    assert stages(tmp_path / "work").unit(unit) == found, "what it printed is kept"


def test_a_failing_command_ends_the_unit_and_is_done_again(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = Unit(PROBE, SEGLOC, "50%", 0)
    monkeypatch.setenv("FAIL", "build")
    with pytest.raises(Stopped, match="segloc-synth ended with 1: Error: no disk left"):
        stages(tmp_path / "work").unit(unit)
    monkeypatch.setenv("FAIL", "nothing")
    assert stages(tmp_path / "work").unit(unit)["pretraining"]
    first = [line.split()[1] for line in calls.read_text().splitlines()]
    assert first == ["phantom", "labels", "build", "build", "--shards", "-m"]
    longer = Unit(PROBE, Arm("longer", train=("--epochs", "2")), "50%", 0)
    monkeypatch.setenv("FAIL", "--shards")
    with pytest.raises(Stopped, match="segloc-train ended with 1"):
        stages(tmp_path / "work").unit(longer)
    monkeypatch.setenv("FAIL", "nothing")
    assert stages(tmp_path / "work").unit(longer)["pretraining"]
    later = [line.split()[1] for line in calls.read_text().splitlines()[len(first) :]]
    assert later == ["--shards", "--resume", "-m"], "a folder that it began goes on, whatever was saved"


def test_a_command_that_outlives_its_runner_is_waited_for(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "25")
    runner = get_context("fork").Process(target=stages(tmp_path / "work").unit, args=(Unit(PROBE, SEGLOC, "50%", 0),))
    runner.start()
    while not calls.exists():
        time.sleep(0.01)
    runner.kill()
    runner.join()
    (lock,) = (tmp_path / "work").rglob("notes/*.lock")
    with lock.open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is done
    monkeypatch.setenv("SLOW", "0")
    cost = stages(tmp_path / "work").unit(Unit(PROBE, SEGLOC, "50%", 0))["cost"]
    assert cost["simulate"]["cpu_seconds"] is None, "nobody has seen what it took"
    assert cost["labels"]["cpu_seconds"] is not None


def test_another_runner_is_not_waited_for_beyond_the_deadline(calls: Path, tmp_path: Path) -> None:
    stages(tmp_path / "work").unit(Unit(PROBE, SEGLOC, "50%", 0))
    (lock,) = (tmp_path / "work").rglob("notes/scans*.lock")
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Stopped, match="another runner is at scans"):
            stages(tmp_path / "work", 0.3).unit(Unit(PROBE, SEGLOC, "50%", 0))


def test_at_the_deadline_a_command_is_asked_to_stop(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "3000")
    with pytest.raises(Stopped, match="ended with 130: saved"):
        stages(tmp_path / "work", 3).unit(Unit(PROBE, SEGLOC, "50%", 0))
    assert not list((tmp_path / "work").rglob("notes/*.json"))
    (spent,) = (json.loads(path.read_text()) for path in (tmp_path / "work").rglob("notes/*.spent"))
    monkeypatch.setenv("SLOW", "0")
    cost = stages(tmp_path / "work").unit(Unit(PROBE, SEGLOC, "50%", 0))["cost"]
    assert cost["simulate"]["seconds"] >= spent["seconds"] > 0.2, "what was stopped has cost something too"


def spent(seconds: float) -> dict[str, float]:
    return {"cpu_seconds": seconds, "seconds": 2 * seconds, "peak_bytes": 2**30}


def record(arm: str, seed: int, ap: float, experiment: str = "arms", **more: Any) -> dict[str, Any]:
    levels = {
        level: {"AP": ap + shift, "AR@10": 2 * ap} for level, shift in (("easy", 0.02), ("hard", 0), ("hidden", -0.02))
    }
    return {
        **{
            "experiment": experiment,
            "arm": arm,
            "share": "10%",
            "seed": seed,
            "scores": {"bbox": levels, "segm": levels},
        },
        **{"device": "cpu", "pretraining": {}, "cost": {"fine-tuning": spent(120.0), "export": spent(30.0)}},
        **more,
    }


def test_intervals_are_students_and_differences_are_paired() -> None:
    assert Estimate.of([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.3027 / 3**0.5, 3), abs=1e-3)
    assert Estimate.of([4.0]) == (4.0, None, 1)
    close = difference({0: 5.0, 1: 9.0, 2: 13.0, 7: 1.0}, {0: 4.0, 1: 8.1, 2: 11.9})
    assert close is not None and close.clear and close.seeds == 3 and close.mean == pytest.approx(1.0)
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_a_table_tells_what_the_records_hold(tmp_path: Path) -> None:
    experiment = Experiment("arms", "?", (RANDOM, SEGLOC, Arm("unknown")), ("10%",), 3)
    path = tmp_path / "records.jsonl"
    for seed in range(3):
        records.append(record("random", seed, 0.10 + 0.01 * seed), path)
        records.append(
            record("segloc", seed, 0.16 + 0.0101 * seed, pretraining={"scan_knn": {"easy": 0.6, "hard": 0.4}}), path
        )
    records.append(record("segloc", 0, 0.5, "other"), path)
    records.append(record("segloc", 0, 0.9, device="some GPU"), path)
    assert [r["device"] for r in records.read(path, gpu=True)] == ["some GPU"]
    known = records.read(path)
    assert len(known) == 7 and known[0] == record("random", 0, 0.10)
    assert {records.key(r) for r in known[:2]} == {Unit(experiment, arm, "10%", 0).key for arm in (RANDOM, SEGLOC)}
    lines = table(known, experiment, columns(experiment)).splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 4, "no row without records"
    random, segloc = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[-2:])
    assert random[:4] == ["random", "3", "11.0 ± 2.5", ""]
    assert segloc[:4] == ["segloc", "3", "17.0 ± 2.5", "+6.0 ± 0.0 *"]
    blends, looked = replace(experiment, look_at_pairs=True), {**known[1], "pretraining": {"paste_auc": 0.931}}
    head, *_, row = table([looked], blends, columns(blends)).splitlines()[2:]
    assert "| paste AUC |" in head and "| 93.1 |" in row and "found again" not in head, "no column without values"
    assert segloc[5:8] == ["19.0 ± 2.5", "17.0 ± 2.5", "15.0 ± 2.5"] and segloc[-2:] == ["50.0 ± 0.0", "2.0 ± 0.0"]
    parts = {"simulate": spent(999.0), "labels": spent(60.0), "probe": {**spent(1.0), "cpu_seconds": None}}
    assert processor_hours([known[0], {**known[0], "cost": parts}]) == pytest.approx(210 / 3600)
    told = [table(known, experiment, costs(gpu)).splitlines()[-1].split(" | ")[2:] for gpu in (False, True)]
    assert told[0] == ["0.5 ± 0.0", "0.0 ± 0.0", "2.0 ± 0.0", "1.0 ± 0.0 |"]
    assert told[1] == ["1.0 ± 0.0", "0.0 ± 0.0", "4.0 ± 0.0", "1.0 ± 0.0 |"]


def test_times_of_other_processors_are_not_told() -> None:
    experiment = Experiment("arms", "?", (RANDOM, SEGLOC), ("10%",), 3)
    known = [record("segloc", 0, 0.16), record("segloc", 1, 0.18), {**record("random", 0, 0.1), "processor": "slow"}]
    known.append({**record("segloc", 0, 0.1, "other"), "processor": "slow"})
    random, segloc = table(records.timed(known), experiment, columns(experiment)).splitlines()[-2:]
    assert random.endswith("|  |") and "10.0" in random and segloc.endswith("| 2.0 ± 0.0 |")
    assert records.timed(known)[-1] == known[-1], "each experiment has its own"


def test_a_chart_needs_two_seeds_and_stands_alone(tmp_path: Path) -> None:
    experiment = Experiment("arms", "Which pays?", (RANDOM, SEGLOC), ("10%",), 3)
    known = [
        record(arm, seed, ap + 0.01 * seed**2) for seed in range(2) for arm, ap in (("random", 0.1), ("segloc", 0.16))
    ]
    assert charts.write(known[:2], [experiment], tmp_path) == [] == list(tmp_path.iterdir())
    (path,) = charts.write(known, [experiment], tmp_path)
    root = ElementTree.fromstring(path.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and float(root.get("width", 0)) > 400
    assert {"segloc", "+6.0 (+6.0 to +6.0)"} <= {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    dots = [float(dot.get("cx", 0)) for dot in root.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(dots) == 2, "one for each seed"
    style = root.find("{http://www.w3.org/2000/svg}style")
    assert style is not None and "--up" in str(style.text) and "prefers-color-scheme: dark" in str(style.text)


def test_the_curve_over_pairs_shown(tmp_path: Path) -> None:
    arms = tuple(Arm(f"{pairs} x {epochs}", pairs=pairs, epochs=epochs) for pairs, epochs in ((2000, 10), (2000, 5)))
    more = (Arm("10000 x 1", pairs=10_000, epochs=1), Arm("on scans", "detection", pairs=2000, epochs=9))
    experiment = Experiment("scale", "How many?", (RANDOM, *arms, *more), ("10%",), 1, on="val")
    scores = zip(experiment.arms, (0.1, 0.3, 0.2, 0.25, 0.9), strict=True)
    known = [record(arm.name, 0, ap, "scale", pretraining={"scan_knn": {"val": 2 * ap}}) for arm, ap in scores]
    assert charts.over_samples(known[:2], experiment, "10%") is None, "one place is no curve"
    (path,) = charts.write(known, [experiment], tmp_path)
    space = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(path.read_text())
    assert path.name == "evidence-scale-curve.svg" and {"2k pairs", "10k pairs", "random"} <= {
        text.text for text in root.findall(f"{space}text")
    }
    ap, knn = root.findall(f"{space}svg")
    places = [
        [tuple(map(float, place.split(","))) for place in line.get("points", "").split()]
        for line in ap.iter(f"{space}polyline")
    ]
    (left, low), (right, high) = places[0]
    ((alone, between),) = places[1]
    assert left < right and low > between > high, "more pairs shown to the right, more AP above"
    assert alone == pytest.approx(left, abs=3.1), "beside the line shown as many pairs"
    assert places[2][0][1] == places[2][1][1] > low, "the base is level and below"
    assert "60" in {text.text for text in knn.iter(f"{space}text")}, "an axis of its own"
    assert charts.apart([10, 12, 15, 20, 60]) == [10, 15, 60], "labels that would lie on each other are left out"


def test_every_committed_record_belongs_to_an_experiment() -> None:
    known = {(e.name, arm.name, share) for e in EXPERIMENTS for arm in e.arms for share in e.shares}
    for one in records.read():
        assert (one["experiment"], one["arm"], one["share"]) in known
        assert len(one["generator"]) == 12 and one["commands"] and one["versions"]["torch"]
    assert len(set(map(records.key, records.read()))) == len(records.read()), "one for each unit"
    assert len({(e.name, arm.name) for e in EXPERIMENTS for arm in e.arms}) == sum(len(e.arms) for e in EXPERIMENTS)


def test_a_runner_in_the_background_stops_its_commands_too(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    for name, stand_in in (("generator", lambda: "0" * 12), ("read", lambda gpu=False: made), ("append", made.append)):
        monkeypatch.setattr(records, name, stand_in)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("SLOW", "3000")
    before = [signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        told = CliRunner().invoke(main, f"run labels --arm random --seeds 1 --hours 0.001 --work {tmp_path}")
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
    assert "segloc-synth ended with 130: saved" in told.output and not made


def test_the_docs_tables_are_those_that_the_records_make() -> None:
    """None is missing, and none lags behind a record that was added."""

    def tables(text: str) -> list[str]:
        return sorted(block.strip() for block in text.split("\n\n") if block.startswith("| "))

    known = records.timed(records.read())
    made = "\n\n".join(table(known, one, columns(one)) for one in EXPERIMENTS)
    assert tables((records.ROOT / "docs/EXPERIMENTS.md").read_text()) == tables(made) != []


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors round otherwise")
def test_the_generator_is_that_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert {one["generator"] for one in records.read()} == {records.generator()}


@pytest.mark.parametrize("profile", [CPU, GPU], ids=["cpu", "gpu"])
def test_the_tools_take_every_arms_flags(profile: Profile) -> None:
    for experiment, arm in [(one, arm) for one in EXPERIMENTS for arm in one.arms]:
        build_command.make_context("build", ["--n", "1", "--out", "pairs", *arm.synth])
        if arm.start.startswith("pretrained"):
            flags = ["--shards", "pairs", *profile.encoder, *profile.train, *arm.train]
            flags += ["--epochs", str(experiment.passes(arm, profile))]
            options = command.make_context("segloc-train", flags).params
            settings = {name: value for name, value in options.items() if name not in ("out", "resume", "summary")}
            pairs = arm.pairs or profile.pairs
            assert resolve(settings, "", pairs, pairs * 3 // 4).total_steps >= 25  # or it says what is wrong


@pytest.mark.slow
def test_a_unit_of_every_kind_runs(tmp_path: Path) -> None:
    """With the real programs, as small as they go."""
    arms = (
        *(RANDOM, SEGLOC, Arm("then labels", "composites"), Arm("alone", "composites", length=0)),
        *(Arm("both", "pretrained, then composites"), Arm("backbone", "backbone")),
        Arm("fewer", "random", labels="50%"),
    )
    experiment = Experiment("tiny", "?", arms, ("100%",), 1)  # of fewer labels not every class would have objects
    runner = stages(tmp_path, 900)
    for arm in arms:
        found = runner.unit(Unit(experiment, arm, "100%", 0))
        assert set(found["scores"]["bbox"]) == set(found["scores"]["segm"]) == {"easy", "hard", "hidden"}
        assert 0 <= found["scores"]["bbox"]["easy"]["AP"] <= 1
        json.dumps(found)
