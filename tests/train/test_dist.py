"""Real ranks under torchrun, on CPUs through gloo: the same results on any number, and a clear end when one dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import click
import pytest
import torch
from tests.conftest import ROOT, Forked
from tests.train.conftest import make_shards

from segloc_train.cli import main
from segloc_train.config import check_share
from segloc_train.dist import World, joined
from segloc_train.run.trainer import Trainer

pytestmark = pytest.mark.usefixtures("thin", "bare")
BATCH = ["--batch-size", "32", "--bn-group", "8", "--workers", "0", "--arch", "resnet18", "--width", "64"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 pairs of 64 px in shards of 50, 50 and 30."""
    return make_shards(tmp_path_factory.mktemp("data") / "pairs", 130, shard_size=50)


def run(*arguments: object) -> None:
    """The program in this process, which it ends."""
    sys.argv = ["segloc-train", *map(str, arguments)]
    main()


def alone(*arguments: object) -> int:
    """Exit code of the program, run inside this process."""
    with mock.patch.object(sys, "argv", []), pytest.raises(SystemExit) as done:
        run(*arguments)
    assert isinstance(done.value.code, int)
    return done.value.code


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def ranks_of(process: "subprocess.Popen[str]") -> list[int]:
    """The processes that torchrun started, that are not its helpers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"segloc_train" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 600
    while not path.is_file():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


def test_two_ranks_compute_what_one_does(uneven: Path, tmp_path: Path) -> None:
    """Losses, queues, weights and running statistics; a tiny learning rate, since training magnifies rounding."""
    arguments = ["--shards", uneven, *BATCH, "--epochs", 1, "--lr", 1e-4, "--out"]
    told = [rank.end() for rank in Forked.ranks(tmp_path, run, *arguments, tmp_path / "run2")]
    assert [code for code, _ in told] == [0, 0], told
    assert alone(*arguments, tmp_path / "run1") == 0
    one, two = (records(tmp_path / f"run{n}") for n in (1, 2))
    assert one[-1]["step"] == two[-1]["step"] > 2
    for name in ("loss", "acc_p2", "held_out_accuracy", "knn_accuracy", "queue_oldest", "queue_collisions"):
        assert one[-1][name] == pytest.approx(two[-1][name], rel=1e-4, abs=1e-6), name
    states = [torch.load(tmp_path / f"run{n}" / "last.pt", weights_only=True)["method"] for n in (1, 2)]
    stores = [state.pop("_extra_state")[0] for state in states]
    assert torch.equal(stores[0]["labels"], stores[1]["labels"])
    # Standardising embeddings that lie close together magnifies rounding.
    assert torch.allclose(stores[0]["keys"], stores[1]["keys"], atol=1e-2)
    for name, x in states[0].items():
        if x.is_floating_point() and not name.startswith("key."):
            assert torch.allclose(x, states[1][name], atol=1e-4, rtol=1e-3), name


def whole(out: Path, epochs: int) -> bool:
    """Are there the weights, each step once, and each epoch's end?"""
    steps = [r["step"] for r in records(out)]
    ends = [r for r in records(out) if "held_out_accuracy" in r]
    return (out / "backbone.pth").is_file() and steps == sorted(set(steps)) and len(ends) == epochs


def test_a_dead_rank_ends_all_and_a_restart_goes_on(uneven: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["--shards", uneven, "--out", out, *BATCH, "--epochs", 3, "--lr", 1e-4]
    launch = {"TORCHELASTIC_RUN_ID": "ours"}
    ranks = Forked.ranks(tmp_path, run, *arguments, **launch)
    wait_for(out / "last.pt")  # an epoch is done
    ranks[1].kill(signal.SIGKILL)
    told = [rank.end() for rank in ranks]
    assert told[0][0] == 1 and "lost contact with another rank" in told[0][1] and told[1][0] == -9, told
    ranks = Forked.ranks(tmp_path, run, *arguments, **launch, TORCHELASTIC_RESTART_COUNT=1)
    told = [rank.end() for rank in ranks]
    assert [code for code, _ in told] == [0, 0] and whole(out, 3), told


@pytest.mark.slow
def test_torchrun_starts_them_again(uneven: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["--shards", uneven, "--out", out, *BATCH, "--epochs", 3, "--lr", 1e-4]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", 2, "--max-restarts", 1, "-m"]
    command = [sys.executable, "-m", *launcher, "tests.thin", "segloc_train", *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([*map(str, command)], text=True, env=ENV, cwd=ROOT, **pipes)
    wait_for(out / "last.pt")  # an epoch is done
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    text = process.communicate(timeout=600)[0]
    assert process.returncode == 0, text
    assert "lost contact with another rank" in text and whole(out, 3)


def test_a_stop_reaches_all_ranks_and_another_number_goes_on(
    uneven: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    ranks = Forked.ranks(tmp_path, run, "--shards", uneven, "--out", out, *BATCH, "--epochs", 50)
    wait_for(out / "last.pt")
    ranks[1].kill(signal.SIGTERM)  # one alone is told
    told = [rank.end() for rank in ranks]
    assert [code for code, _ in told] == [143, 143] and "go on with --resume" in told[0][1], told
    stopped = torch.load(out / "last.pt", weights_only=True)["step"]
    advance = Trainer.advance

    def stop(trainer: Trainer, *given: Any) -> None:
        advance(trainer, *given)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "advance", stop)
    assert alone("--resume", out) == 130
    assert torch.load(out / "last.pt", weights_only=True)["step"] == stopped + 1


def apart() -> None:
    with joined(torch.device("cpu")) as world:
        world.agree("the weather", "sunny")
        try:
            world.agree("the weather", "sunny" if world.first else "rainy")
        except click.ClickException as error:
            print(error.message)
        world.wait()


def test_ranks_that_differ_end_at_once(tmp_path: Path) -> None:
    """They would wait for each other for ever, or train on different pairs."""
    told = [rank.end() for rank in Forked.ranks(tmp_path, apart)]
    words = [f"the ranks differ in the weather (rank {n}: {word})" for n, word in enumerate(("sunny", "rainy"))]
    assert all(code == 0 and word in text for (code, text), word in zip(told, words, strict=True)), told


def test_half_a_world_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = r"RANK expected.*; start them by torchrun, or unset WORLD_SIZE"
    with pytest.raises(click.ClickException, match=told), joined(torch.device("cpu")):
        pass


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    config = SimpleNamespace(batch_size=32, bn_group=16)
    check_share(config, 2)  # type: ignore[arg-type]
    with pytest.raises(click.ClickException, match="cannot be dealt out to 3 ranks"):
        check_share(config, 3)  # type: ignore[arg-type]


def test_alone_nothing_is_exchanged() -> None:
    x = torch.ones(3)
    assert World().gather(x) is x
    World().sum_([x])
    World().mean_([x])
    World().wait()
    assert x.tolist() == [1, 1, 1] and World().first
