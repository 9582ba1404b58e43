"""Exports load where they say, strictly; foreign files are refused and run nothing."""

import io
import os
import pickle
from pathlib import Path

import click
import pytest
import torch
import torchvision
from torch import nn

from segloc_synth.files import atomic_write, read_json
from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import load_strict, load_tensors, save_tensors
from segloc_train.run.export import export, fold_batch_norm


def trained_like(module: nn.Module) -> nn.Module:
    """Give every BN statistics and scales as training would."""
    draws = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(generator=draws)
            part.running_var.uniform_(0.2, 3, generator=draws)
            nn.init.uniform_(part.weight, -1.5, 1.5, generator=draws)
            nn.init.normal_(part.bias, generator=draws)
    return module.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[SDANet, Path]:
    torch.manual_seed(0)
    net = SDANet("resnet18", 64)
    trained_like(net)
    folder = tmp_path_factory.mktemp("run")
    export(net, "resnet18", folder, {"arch": "resnet18", "width": 64})
    return net, folder


@pytest.mark.parametrize("name", ["backbone.pth", "backbone.safetensors"])
def test_backbone_loads_strictly_and_computes_the_same(exported: tuple[SDANet, Path], name: str) -> None:
    net, folder = exported
    other = SDANet("resnet18", 64)
    load_strict(other, load_tensors(folder / name), name)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(net(images), other.eval()(images), strict=True):
            assert torch.equal(a, b)
    meta = read_json(folder / "meta.json")
    assert meta["arch"] == "resnet18" and meta["mean"] == [0.485, 0.456, 0.406] and "torch" in meta["versions"]


def test_one_altered_key_or_shape_is_refused(exported: tuple[SDANet, Path]) -> None:
    tensors = load_tensors(exported[1] / "backbone.pth")
    other = SDANet("resnet18", 64)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    renamed = dict(tensors)
    renamed["trunk.conv2.weight"] = renamed.pop("trunk.conv1.weight")
    with pytest.raises(click.ClickException, match=r"x\.pth.*missing trunk\.conv1\.weight.*unexpected trunk\.conv2"):
        load_strict(other, renamed, "x.pth")
    with pytest.raises(click.ClickException, match=r"shape of trunk\.conv1\.weight \(64, 3, 3, 3\) instead of"):
        load_strict(other, {**tensors, "trunk.conv1.weight": torch.zeros(64, 3, 3, 3)}, "x.pth")
    assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())


def test_resnet_loads_into_torchvision_but_for_fc(exported: tuple[SDANet, Path]) -> None:
    net, folder = exported
    plain = torchvision.models.resnet18(weights=None).eval()
    found = plain.load_state_dict(load_tensors(folder / "resnet.pth"), strict=False)
    assert found.missing_keys == ["fc.weight", "fc.bias"] and found.unexpected_keys == []
    assert torch.equal(plain.layer4[1].bn2.running_var, net.trunk.layer4[1].bn2.running_var)


def test_folded_pyramid_computes_the_same(exported: tuple[SDANet, Path]) -> None:
    net, folder = exported
    tensors = load_tensors(folder / "detector_init.pth")
    assert {k.split(".")[0] for k in tensors} == {"backbone", "neck"}
    assert not any("attention" in k or "bn" in k for k in tensors if k.startswith("neck"))
    for part, blocks in (("lateral_convs", net.pyramid.lateral), ("fpn_convs", net.pyramid.output)):
        for i, block in enumerate(blocks):
            conv, norm = block  # type: ignore[misc]
            x = torch.randn(2, conv.in_channels, 9, 9)
            weight, bias = (tensors[f"neck.{part}.{i}.conv.{k}"] for k in ("weight", "bias"))
            with torch.no_grad():
                plain = nn.functional.conv2d(x, weight, bias, padding=conv.padding)
                assert torch.allclose(plain, norm(conv(x)), atol=1e-5, rtol=1e-4)
                exact = fold_batch_norm(conv, norm)
    assert torch.equal(exact[0], weight)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_foreign_files_are_refused_in_one_line_and_run_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    files: dict[str, bytes] = {
        "pickle.pth": pickle.dumps({"a": Bomb(trap)}),
        "empty.pt": b"",
        "noise.pth": b"\x00\x01not weights" * 99,
        "noise.safetensors": b"\xff" * 100,
    }
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2), "b": Bomb(trap)}, buffer)
    files["bomb.pth"] = buffer.getvalue()
    files["cut.pth"] = buffer.getvalue()[:-60]
    for value, name in (([torch.zeros(1)], "list.pth"), ({"a": 1}, "number.pt"), ({}, "nothing.pt")):
        buffer = io.BytesIO()
        torch.save(value, buffer)
        files[name] = buffer.getvalue()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(click.ClickException) as error:
            load_tensors(tmp_path / name)
        assert name in error.value.message and "\n" not in error.value.message, error.value.message
    with pytest.raises(click.ClickException, match="no such file"):
        load_tensors(tmp_path / "absent.pth")
    assert not trap.exists()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_tensors(path, {"a": torch.ones(3)})
    with pytest.raises(click.ClickException, match=r"last\.pt/x\.pt: cannot be written"):
        save_tensors(path / "x.pt", {"a": torch.ones(3)})
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert torch.equal(load_tensors(path)["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
