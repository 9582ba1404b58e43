"""Whole runs of the real program: repeatable, interruptible, resumable, and clear about mistakes."""

import contextlib
import io
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.conftest import Forked
from tests.train.conftest import make_shards

from segloc_synth.files import read_json, write_json
from segloc_train import config as settings
from segloc_train.cli import main
from segloc_train.data.order import split
from segloc_train.data.sources import open_sources
from segloc_train.model.checkpoint import load_tensors, save_tensors
from segloc_train.run.trainer import Trainer, build

pytestmark = pytest.mark.usefixtures("thin", "bare")
SMALL = ["--arch", "resnet18", "--width", "64", "--batch-size", "16", "--epochs", "2", "--workers", "0"]


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and all output of the program, run inside this process: imports take longer than the runs."""
    out, messages = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(messages)
    logger = logging.getLogger("segloc")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with (
            mock.patch.object(sys, "argv", ["segloc-train", *map(str, arguments)]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
            pytest.raises(SystemExit) as done,
        ):
            main()
    finally:
        logger.removeHandler(handler)
    assert isinstance(done.value.code, int)
    return done.value.code, out.getvalue() + messages.getvalue()


def signalled(step: int, number: int, log: Path, *arguments: object) -> int:
    """Exit code of the program when it, and all processes of its own, get a signal after a step."""

    def work() -> None:
        advance = Trainer.advance

        def then(trainer: Trainer, *given: Any) -> None:
            advance(trainer, *given)
            if trainer.step == step:
                os.killpg(0, number)

        with mock.patch.object(Trainer, "advance", then):
            sys.exit(run(*arguments)[0])

    return Forked(log, work).end()[0]


def records(folder: Path) -> list[dict[str, Any]]:
    """log.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("samples_per_second", "data_wait")} for line in lines]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96 pairs of 64 px in two shards."""
    return make_shards(tmp_path_factory.mktemp("data") / "pairs", 96, shard_size=60)


@pytest.fixture(scope="module")
def undisturbed(thin: None, bare: None, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: 96 pairs, 24 held out, 2 epochs of 4 steps."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    code, text = run("--shards", shards, "--out", folder, *SMALL, "--save-every", 1)
    assert code == 0, text
    return folder


def test_a_run_leaves_what_the_contract_says(undisturbed: Path) -> None:
    log = records(undisturbed)
    assert [(r["step"], r["epoch"]) for r in log] == [(4, 1), (8, 2)]
    for record in log:
        levels = [record[f"loss_p{level}"] for level in range(2, 7)]
        assert record["loss"] == pytest.approx(sum(levels), rel=1e-5)
        assert all(0 <= record[f"acc_p{level}"] <= 1 for level in range(2, 7))
        mean = sum(record[f"held_out_accuracy_p{level}"] for level in range(2, 7)) / 5
        assert record["held_out_accuracy"] == pytest.approx(mean, abs=1e-6) and record["lr"] > 0
    names = {path.name.split(".tfevents")[0] for path in undisturbed.iterdir()}
    exports = {"backbone.pth", "backbone.safetensors", "resnet.pth", "detector_init.pth", "meta.json"}
    pictures = {"embeddings_001.png", "embeddings_002.png", "projector", "projector_config.pbtxt"}
    kept = {"config.json", "log.jsonl", "last.pt", "events.out", "epoch_001.pt", "epoch_002.pt"}
    assert names == exports | pictures | kept
    last, final = load_tensors(undisturbed / "epoch_002.pt"), load_tensors(undisturbed / "backbone.pth")
    assert all(torch.equal(last[k], v) for k, v in final.items())
    config = read_json(undisturbed / "config.json")
    assert config["queue_size"] == 16 and config["bn_group"] == 8 and config["samples"] == 96
    assert config["momentum_key"] == 0 and config["optimizer"] == "adamw"
    assert [c["name"] for c in read_json(undisturbed / "meta.json")["classes"]] == [
        "disc",
        "square",
        "triangle",
        "ring",
    ]


def test_same_seed_same_losses_and_another_seed_others(undisturbed: Path, shards: Path, tmp_path: Path) -> None:
    workers = [*SMALL, "--workers", 2]  # workers decide nothing
    assert run("--shards", shards, "--out", tmp_path / "same", *workers)[0] == 0
    assert records(tmp_path / "same") == records(undisturbed)
    assert run("--shards", shards, "--out", tmp_path / "other", *SMALL, "--epochs", 1, "--seed", 1)[0] == 0
    assert records(tmp_path / "other")[0]["loss"] != records(undisturbed)[0]["loss"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow), (signal.SIGKILL, -9)],
)
def test_interrupt_and_resume_equal_an_undisturbed_run(
    undisturbed: Path, shards: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    workers = int(number == signal.SIGINT)  # once with workers, which the signal reaches as well
    assert (
        signalled(6, number, tmp_path / "log", "--shards", shards, "--out", folder, *SMALL, "--workers", workers)
        == code
    )
    state = torch.load(folder / "last.pt", weights_only=True)
    assert not (folder / "backbone.pth").exists()
    # of the middle of an epoch, or of the last epoch's end: what came after is done again
    assert state["step"] == (4 if number == signal.SIGKILL else 6)
    # records of steps that a crash lost, and half a line, must not stay
    with (folder / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "epoch": 2, "loss": 0.0}\n{"step": 9, "lo')
    done, text = run("--resume", folder)
    assert done == 0, text
    assert records(folder) == records(undisturbed)
    mine, theirs = load_tensors(folder / "backbone.pth"), load_tensors(undisturbed / "backbone.pth")
    assert all(torch.equal(mine[k], v) for k, v in theirs.items())


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(
    "arch",
    [
        "tf_efficientnet_lite0",
        *(pytest.param(a, marks=pytest.mark.slow) for a in ("convnext_atto", "vit_tiny_patch16_224")),
    ],
)
def test_trunks_of_timm_resume_to_the_bit(shards: Path, tmp_path: Path, arch: str) -> None:
    flags = ["--shards", shards, *SMALL, "--epochs", 1, "--arch", arch]
    assert run(*flags, "--out", tmp_path / "whole")[0] == 0
    assert signalled(2, signal.SIGTERM, tmp_path / "log", *flags, "--out", tmp_path / "cut") == 143
    assert run("--resume", tmp_path / "cut")[0] == 0
    whole, cut = (load_tensors(tmp_path / name / "backbone.pth") for name in ("whole", "cut"))
    assert all(torch.equal(cut[name], x) for name, x in whole.items())


def test_resume_refuses_another_config_and_says_when_finished(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    code, text = run("--resume", folder, "--lr", 0.1)
    assert code == 1 and "--lr 0.1 contradicts" in text and "0.004" in text
    code, text = run("--resume", folder, "--out", tmp_path / "other")
    assert code == 1 and "--out" in text and "contradicts" in text
    code, text = run("--resume", folder, "--workers", 0, "--lr", 0.004)
    assert code == 0 and "is finished: 2 epochs, 8 steps" in text
    assert records(folder) == records(undisturbed)
    code, text = run("--resume", folder, "--on-bad-shard", "skip")
    assert code == 0, "it may be changed when damage is found on the way"
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "device": "cuda"})
    assert run("--resume", folder)[0] == 1 and run("--resume", folder, "--device", "cpu")[0] == 0
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "device": "auto"})
    state = torch.load(folder / "last.pt", weights_only=True)
    (folder / "last.pt").unlink()
    code, text = run("--resume", folder)
    assert code == 1 and "last.pt: is gone, and" in text and records(folder) == records(undisturbed)
    del state["optimizer"]
    save_tensors(folder / "last.pt", state)
    code, text = run("--resume", folder)
    assert code == 1 and "last.pt: is not the state of this run" in text
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "shards_hash": "0" * 64})
    code, text = run("--resume", folder)
    assert code == 1 and "holds other shards than" in text


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("method", "foo", "'foo' is not one of 'classify'"),
        ("shards", [], "names none"),
        ("weights", [0.0], "0.0 is not in the range"),
        ("arch", "resnet999", "arch 'resnet999' is unknown; the nearest are resnet"),
        ("width", 8, "'8' is not one of"),
        ("epochs", 0, "0 is not in the range x>=1"),
        ("optimizer", "lion", "'lion' is not one of"),
        ("lr", float("inf"), "inf is not a finite number"),
        ("augment", "x", "'x' is not one of"),
        ("crop", 5.0, "5.0 is not in the range"),
        ("seed", -1, "-1 is not in the range"),
        ("workers", -1, "-1 is not in the range"),
        ("precision", "foo", "'foo' is not one of"),
        ("batch_size", 128, "fewer than one batch of 128"),
        ("training", 100, "100, but its shards leave 72"),
    ],
)
def test_resume_refuses_what_the_flags_would_refuse(
    undisturbed: Path, tmp_path: Path, field: str, value: Any, words: str
) -> None:
    config = {**read_json(undisturbed / "config.json"), field: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, text = run("--resume", tmp_path)
    assert code == 1 and text.count("\n") == 1 and words in text, text
    assert f"{tmp_path / 'config.json'}: " in text and (f"json: {field}: " in text or field == "batch_size")


@pytest.mark.parametrize("step", [-1, 9, 7.5])
def test_resume_refuses_a_step_outside_the_run(undisturbed: Path, tmp_path: Path, step: float) -> None:
    shutil.copyfile(undisturbed / "config.json", tmp_path / "config.json")
    state = torch.load(undisturbed / "last.pt", weights_only=True)
    save_tensors(tmp_path / "last.pt", {**state, "step": step})
    code, text = run("--resume", tmp_path)
    assert code == 1 and "last.pt: is not the state of this run; start a new run with --out" in text, text


@pytest.mark.parametrize("name", ["config.json", "last.pt"])
def test_a_torn_file_of_a_run_is_told_with_the_remedy(undisturbed: Path, tmp_path: Path, name: str) -> None:
    for one in ("config.json", "last.pt"):
        shutil.copyfile(undisturbed / one, tmp_path / one)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    code, text = run("--resume", tmp_path)
    assert code == 1 and f"{tmp_path / name}: " in text and text.endswith("; start a new run with --out\n"), text


def test_a_restart_goes_on_with_no_run_but_its_own(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launch of torchrun's may bear the name of an earlier one: `none` is that of all with a static rendezvous."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    command = ("--shards", shards, "--out", tmp_path / "run", *SMALL, "--epochs", 1)
    assert run(*command, "--method", "moco")[0] == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    code, text = run(*command)
    assert code == 1 and "folder is not empty; continue its run with --resume" in text
    code, text = run(*command, "--method", "moco")
    assert code == 0 and "is finished: 1 epochs" in text
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert run(*command, "--method", "moco")[0] == 1


def test_the_backbone_of_an_epoch_is_there_before_the_state_behind_it(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So one that was stopped between the two writes it when it goes on."""
    written: list[str] = []

    def stop_behind_the_first(path: Path, tensors: Any) -> None:
        save_tensors(path, tensors)
        written.append(path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr("segloc_train.run.trainer.save_tensors", stop_behind_the_first)
    assert run("--shards", shards, "--out", tmp_path / "run", *SMALL, "--save-every", 1)[0] == 130
    assert written == ["epoch_001.pt"]


def test_too_large_a_queue_is_said_in_a_line(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_left(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("segloc_train.methods.common.queues.torch.randn", nothing_left)
    code, text = run("--shards", shards, "--out", tmp_path / "run", *SMALL)
    assert code == 1 and text.count("Error: ") == 1 and "--queue-size" in text and "Traceback" not in text


def test_learning_rate_zero_freezes_the_weights(shards: Path, tmp_path: Path) -> None:
    assert (
        run("--shards", shards, "--out", tmp_path / "run", *SMALL, "--epochs", 1, "--lr", 0, "--save-every", 1)[0] == 0
    )
    run_one = load_tensors(tmp_path / "run" / "backbone.pth")
    config = settings.stored(tmp_path / "run" / "config.json")
    start = build(config, 4, torch.device("cpu")).query.backbone.state_dict()
    trained = {k for k, x in run_one.items() if not torch.equal(x, start[k])}
    assert trained and all("running_" in k or "num_batches" in k for k in trained)


def test_one_class_warns_and_leaves_the_accuracy_out(tmp_path: Path) -> None:
    make_shards(tmp_path / "pairs", 80, classes=1)
    code, text = run("--shards", tmp_path / "pairs", "--out", tmp_path / "run", *SMALL, "--epochs", 1)
    assert code == 0 and "random start keys" in text and "held-out accuracy is undefined" in text
    assert "held_out_accuracy" not in records(tmp_path / "run")[-1]


def test_one_class_is_enough_where_classes_do_not_count(tmp_path: Path) -> None:
    make_shards(tmp_path / "pairs", 80, classes=1)
    for method, warned in (("moco", False), ("supcon", True)):
        _, text = run("--shards", tmp_path / "pairs", "--summary", *SMALL, "--method", method)
        assert ("all training pairs are of class" in text) is warned, text


def test_a_full_memory_names_the_remedy(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Trainer, "advance", exhaust)
    code, text = run("--shards", shards, "--out", tmp_path / "run", *SMALL)
    assert code == 1 and "out of memory with batch statistics of 8 pairs a step; lower --bn-group" in text


def test_a_word_is_no_folder(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "random").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run("--shards", shards, "--out", "run", *SMALL, "--epochs", 1)[0] == 0
    assert read_json(tmp_path / "run" / "config.json")["init"] == "random"


def test_damaged_jpeg_is_named_by_shard_and_key(tmp_path: Path) -> None:
    folder = make_shards(tmp_path / "pairs", 80, shard_size=50)
    side = read_json(folder / "segloc-00000001.json")
    shard = folder / "segloc-00000001.tar"
    data = bytearray(shard.read_bytes())
    for row in side["offsets"]:
        data[row[2] : row[2] + 20] = bytes(20)
    shard.write_bytes(data)
    for workers in (0, 1):
        code, text = run("--shards", folder, "--out", tmp_path / f"run{workers}", *SMALL, "--workers", workers)
        assert code == 1 and "segloc-00000001.tar: 0000000000" in text and "key.jpg" in text, text


def test_a_damaged_held_out_pair_is_named_when_another_stands_in(tmp_path: Path) -> None:
    folder = make_shards(tmp_path / "pairs", 80)
    whole = open_sources([str(folder)])
    place = int(split(whole.scans, whole.scan_names).held_out[0])
    with (folder / "segloc-00000000.tar").open("r+b") as file:
        file.seek(read_json(folder / "segloc-00000000.json")["offsets"][place][2])
        file.write(bytes(20))
    arguments = ["--shards", folder, "--out", tmp_path / "run", *SMALL, "--epochs", 1, "--on-bad-shard", "skip"]
    code, text = run(*arguments)
    assert code == 0 and f"another pair stands in (1 times so far): {folder}/segloc-00000000.tar: {place:012d}" in text


def test_help_version_and_mistakes(shards: Path, tmp_path: Path) -> None:
    help = subprocess.run([sys.executable, "-m", "segloc_train", "-h"], capture_output=True, text=True, check=True)
    text = help.stdout
    assert not help.stderr and all(
        flag in text for flag in ("--shards", "--momentum-key", "(0.004 for", "--resume RUN")
    )
    assert run("--version") == (0, "segloc-train 0.1.0\n")
    code, text = run("--shards", shards, "--summary", *SMALL)
    assert code == 0 and "8 steps" in text and "K 16" in text and re.search(r"m [\d.e-]+ per 256", text)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    out = ["--out", tmp_path / "new"]
    for arguments, expected, words in (
        (["--shards", tmp_path / "nowhere", *out], 1, "no such folder of shards"),
        (["--shards", tmp_path / "full", *out], 1, "no manifest.json"),
        (["--shards", shards, "--out", tmp_path / "full", *SMALL], 1, "--resume"),
        (["--shards", shards, "--shards", shards, *out, *SMALL], 1, "00000.tar: --shards names it twice"),
        (["--shards", shards, *out, "--batch-size", 500], 1, "fewer than one batch of 500"),
        (["--shards", shards, *out, *SMALL, "--batch-size", 8], 1, "multiple of 16"),
        (["--shards", shards, *out, *SMALL, "--bn-group", 16], 1, "--bn-group 16"),
        (["--shards", shards, *out, *SMALL, "--init", tmp_path / "absent.pth"], 1, "absent.pth: no such file"),
        (["--shards", shards, *out, *SMALL, "--queue-size", 8], 1, "smaller than a batch of 16"),
        (["--shards", shards, *out, *SMALL, "--augment", "none", "--crop", 0.5], 1, "take mild or moco"),
        (["--shards", shards, *out, *SMALL, "--lr", "nan"], 2, "not a finite number"),
        (["--shards", shards, *out, *SMALL, "--epochs", 0], 2, "--epochs"),
        (["--shards", shards, *out, *SMALL, "--device", "cuda"], 1, "no CUDA device"),
        (["--out", tmp_path / "new"], 2, "--shards is missing"),
        (["--shards", shards], 2, "--out is missing"),
        (["--shards", shards, "--out", "s3://bucket/run"], 2, "s3://bucket/run is no folder of this machine"),
        (["--resume", tmp_path / "nowhere"], 1, "no such run folder"),
        (["--resume", tmp_path / "full"], 1, "config.json: no such file"),
    ):
        code, text = run(*arguments)
        assert code == expected and words in text, (arguments, code, text)
    assert not (tmp_path / "new").exists() and [p.name for p in (tmp_path / "full").iterdir()] == ["note"]


def test_a_loss_that_is_not_finite_stops_the_run(shards: Path, tmp_path: Path) -> None:
    code, text = run("--shards", shards, "--out", tmp_path / "run", *SMALL, "--lr", 1e30)
    assert code == 1 and "no state was saved before; lower --lr" in text
    named = re.search(r"not finite at step (\d+), in batch statistics shared by (\S+tar): (\d{12})", text)
    assert named and int(named[1]) == 2 and Path(named[2]).is_file() and int(named[3]) < 96
    assert not (tmp_path / "run" / "backbone.pth").exists()


def test_weights_that_are_not_finite_are_not_kept(shards: Path, tmp_path: Path) -> None:
    """One step an epoch: its loss is fine still when the state would be saved."""
    folder, options = tmp_path / "run", [*SMALL, "--batch-size", 64, "--lr", 1e30]
    code, text = run("--shards", shards, "--out", folder, *options)
    assert code == 1 and "weights are not finite after step 1; no state was saved before" in text
    assert not (folder / "last.pt").exists()


def test_a_killed_stream_goes_on_at_the_epoch(shards: Path, tmp_path: Path) -> None:
    options = ["--shards", shards, *SMALL, "--stream"]
    assert run(*options, "--out", tmp_path / "whole")[0] == 0
    folder = tmp_path / "run"
    assert signalled(6, signal.SIGKILL, tmp_path / "log", *options, "--out", folder) == -9
    code, text = run("--resume", folder)
    assert code == 0, text
    assert records(folder) == records(tmp_path / "whole")


def test_a_full_disk_leaves_the_last_state(shards: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk: writing fails half way in the same place."""
    folder = tmp_path / "run"
    assert run("--shards", shards, "--out", folder, *SMALL, "--epochs", 1)[0] == 0
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "epochs": 2})
    before = (folder / "last.pt").read_bytes()
    half = len(before) // 2
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (half, most))
    try:
        code, text = run("--resume", folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    told = "last.pt: cannot be written (File too large); what stood there before is unharmed"
    assert code == 1 and told in text, text
    assert (folder / "last.pt").read_bytes() == before and not list(folder.glob("*.tmp*"))
