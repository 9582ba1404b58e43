"""A backbone starts from exactly the file that was named, or not at all."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import click
import pytest
import torch
import torchvision
from torch import Tensor

from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import save_tensors
from segloc_train.model.start import IMAGENET, RANDOM, initialise
from segloc_train.run.export import export

ARCH, WIDTH = "resnet18", 8


def fresh(seed: int) -> SDANet:
    torch.manual_seed(seed)
    return SDANet(ARCH, WIDTH)


def resnet(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return torchvision.models.resnet18(weights=None).state_dict()


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
    export(given, tmp_path, {})
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
