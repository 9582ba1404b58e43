"""A backbone starts from exactly the file that was named, or not at all."""

import io
import pickle
import tarfile
import zipfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import click
import pytest
import torch
import torchvision
from click.testing import CliRunner
from safetensors.torch import save
from torch import Tensor

from segloc_train.cli import command
from segloc_train.config import ANEW
from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import load_state, load_tensors, save_tensors
from segloc_train.model.start import IMAGENET, RANDOM, initialise
from segloc_train.run.export import export

ARCH, WIDTH = "resnet18", 8


@cache
def _drawn(seed: int) -> tuple[SDANet, dict[str, Tensor]]:
    torch.manual_seed(seed)
    return SDANet(ARCH, WIDTH), torchvision.models.resnet18(weights=None).state_dict()


def fresh(seed: int) -> SDANet:
    return deepcopy(_drawn(seed)[0])


def resnet(seed: int) -> dict[str, Tensor]:
    return deepcopy(_drawn(seed)[1])


def loaded(source: object) -> dict[str, Tensor]:
    """State of a backbone of seed 0 after initialise."""
    backbone = fresh(0)
    initialise(backbone, ARCH, str(source))
    return backbone.state_dict()


def same(one: dict[str, Tensor], two: dict[str, Tensor], part: str = "") -> bool:
    return all(torch.equal(x, two[name]) for name, x in one.items() if name.startswith(part))


def refusal(source: object) -> str:
    """The one line that refuses `source`; nothing of it is loaded."""
    backbone = fresh(0)
    with pytest.raises(click.ClickException) as error:
        initialise(backbone, ARCH, str(source))
    assert same(fresh(0).state_dict(), backbone.state_dict()) and "\n" not in error.value.message
    return error.value.message


def test_a_run_and_its_files_give_the_whole_backbone_or_the_trunk(tmp_path: Path) -> None:
    given = fresh(1)
    export(given, ARCH, tmp_path, {})
    for source in (tmp_path, tmp_path / "backbone.pth", tmp_path / "backbone.safetensors"):
        assert same(loaded(source), given.state_dict())
    trunk = loaded(tmp_path / "resnet.pth")
    assert same(trunk, given.state_dict(), "trunk.")
    assert same(trunk, fresh(0).state_dict(), "pyramid.") and same(trunk, fresh(0).state_dict(), "attention.")
    assert same(loaded(RANDOM), fresh(0).state_dict())


def test_any_torchvision_resnet_goes_into_the_trunk(tmp_path: Path) -> None:
    weights = resnet(2)
    old = {name: x for name, x in weights.items() if not name.endswith("num_batches_tracked")}
    for number, tensors in enumerate((weights, old)):
        save_tensors(tmp_path / f"{number}.pth", tensors)
        state = loaded(tmp_path / f"{number}.pth")
        assert all(torch.equal(state[f"trunk.{name}"], x) for name, x in weights.items() if "fc." not in name)


class Hostile:
    """Creates the file `path` when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_anything_else_is_refused_in_one_line(tmp_path: Path) -> None:
    weights, own = resnet(2), fresh(1).state_dict()
    del own["pyramid.lateral.0.0.weight"]
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "prefixed": ({f"module.{name}": x for name, x in weights.items()}, "unexpected module.conv1.weight"),
        "detector": ({f"backbone.{name}": x for name, x in weights.items()}, "unexpected backbone.conv1.weight"),
        "lacking": ({n: x for n, x in weights.items() if n != "layer2.0.bn1.bias"}, "missing layer2.0.bn1.bias"),
        "more": ({**weights, "layer9.weight": torch.zeros(1)}, "unexpected layer9.weight"),
        "deeper": (torchvision.models.resnet34(weights=None).state_dict(), "unexpected layer1.2.conv1.weight"),
        "part": (own, "missing pyramid.lateral.0.0.weight"),
        "wider": (SDANet(ARCH, 16).state_dict(), "wider.pt: is of width 16, this run has 8"),
        "state": ({"step": 3, "method": weights}, "holds more than named tensors"),
    }
    for name, (value, words) in cases.items():
        save_tensors(tmp_path / f"{name}.pt", value)
        message = refusal(tmp_path / f"{name}.pt")
        assert words in message and f"{name}.pt" in message, message
    trap = tmp_path / "sprung"
    torch.save({**weights, "conv1.bias": Hostile(trap)}, tmp_path / "hostile.pth")
    assert "holds code or objects" in refusal(tmp_path / "hostile.pth") and not trap.exists()
    assert "no such file" in refusal(tmp_path / "nowhere.pth")
    assert "no backbone.pth in it; name a finished run" in refusal(tmp_path)


def archives() -> tuple[bytes, bytes]:
    """A .zip and a .tar with an empty file each."""
    first, second = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(first, "w") as file, tarfile.open(fileobj=second, mode="w") as tape:
        file.writestr("a/read.me", "")
        tape.addfile(tarfile.TarInfo("read.me"))
    return first.getvalue(), second.getvalue()


def saved(**options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(99, 99)}, buffer, **options)
    return buffer.getvalue()


DAMAGED = "refused: damaged, or no file of tensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 46830571\n"
NO_WEIGHTS = {
    "pointer.pth": (POINTER, "refused: it is a pointer of Git LFS, not the weights, which git lfs pull fetches"),
    "page.pth": (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><body>Sign in", "refused: it is a web page, not the weights"),
    "words.pth": ("Für Gewichte siehe unten. ".encode() * 99, "refused: it is a text, not weights"),
    "cut in a letter.pth": (b"x" + "ü".encode() * 999, "refused: it is a text, not weights"),
    "empty.pth": (b"", "refused: it is empty"),
    "archive.pth": (archives()[0], DAMAGED),
    "tape.pth": (archives()[1], DAMAGED),
    "noise.pth": (b"\x95\x00\x13" * 999, DAMAGED),
    **{f"cut at {size}.pth": (saved()[:size], DAMAGED) for size in (8, 900, 39000)},
    **{
        f"old, cut at {size}.pth": (saved(_use_new_zipfile_serialization=False)[:size], DAMAGED)
        for size in (1, 20, 900)
    },
    **{
        f"cut at {size}.safetensors": (save({"conv1.weight": torch.zeros(99, 99)})[:size], DAMAGED)
        for size in (3, 8, 20, 900)
    },
    "objects.pth": (pickle.dumps({"a": Path("b")}), "refused: it holds code or objects, not only tensors"),
}


@pytest.mark.parametrize("name", [*NO_WEIGHTS, "pointer.safetensors", "page.pt", "words.safetensors"])
def test_a_file_without_weights_is_told_as_what_it_is(tmp_path: Path, name: str) -> None:
    like = NO_WEIGHTS.get(name) or NO_WEIGHTS[f"{name.partition('.')[0]}.pth"]
    (tmp_path / name).write_bytes(like[0])
    message = refusal(tmp_path / name)
    assert message.startswith(f"{tmp_path / name}: {like[1]}"), message
    with pytest.raises(click.ClickException) as error:  # as last.pt of --resume is read
        load_state(tmp_path / name, ANEW)
    assert error.value.message == f"{message}; {ANEW}"


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path, value: float) -> None:
    for name, tensors in (("layer1.0.conv1.weight", resnet(2)), ("trunk.bn1.running_var", fresh(1).state_dict())):
        tensors[name].view(-1)[3] = value
        save_tensors(tmp_path / "diverged.pth", tensors)
        assert f"diverged.pth: {name} is not finite (nan or inf)" in refusal(tmp_path / "diverged.pth")
    for odd in (torch.zeros(2).to_sparse(), torch.zeros(2, device="meta")):
        torch.save({"a": odd}, tmp_path / "odd.pth")
        assert "'a' is a tensor without plain numbers" in refusal(tmp_path / "odd.pth")
    small = {"half": torch.zeros(2).bfloat16(), "eighth": torch.zeros(2).to(torch.float8_e4m3fn), "n": torch.ones(())}
    save_tensors(tmp_path / "small.pth", small)
    assert load_tensors(tmp_path / "small.pth").keys() == small.keys()


def test_the_program_refuses_a_start_before_it_makes_a_run(bare: None, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "pointer.pth").write_bytes(POINTER)
    save_tensors(tmp_path / "diverged.pth", {**resnet(2), "layer1.0.conv1.weight": torch.full((1,), float("nan"))})
    for name, words in (
        ("pointer.pth", "refused: it is a pointer of Git LFS, not the weights, which git lfs pull fetches"),
        ("diverged.pth", "layer1.0.conv1.weight is not finite (nan or inf), as after a training that diverged; "),
    ):
        args = ["--shards", shards, "--out", tmp_path / "run", "--init", tmp_path / name, "--arch", ARCH]
        flags = ["--width", "64", "--batch-size", "16", "--workers", "0", "--device", "cpu"]
        done = CliRunner().invoke(command, [str(arg) for arg in [*args, *flags]])
        last = done.output.splitlines()[-1]
        assert (done.exit_code, last.startswith(f"Error: {tmp_path / name}: {words}")) == (1, True), done.output
        assert not (tmp_path / "run").exists()


def test_imagenet_without_a_home_wants_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.chdir(tmp_path)
    assert refusal(IMAGENET) == "imagenet: this user has no home folder; name one for the weights by $TORCH_HOME"
    assert not list(tmp_path.iterdir())


def test_imagenet_comes_from_torch_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    message = refusal(IMAGENET)
    assert "cannot fetch https://" in message and "no route to host" in message and f"put it at {cached}" in message
    save_tensors(cached, resnet(2))
    assert same({f"trunk.{n}": x for n, x in resnet(2).items() if "fc." not in n}, loaded(IMAGENET))
    cached.write_bytes(b"half a file")
    assert "delete the file to fetch it anew" in refusal(IMAGENET)
