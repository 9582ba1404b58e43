"""Trunks of timm and torchvision: their maps, their weights, and what they leave for others."""

import copy
from dataclasses import replace
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import URLError

import click
import cv2
import pytest
import skimage.data
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from tests.train.test_methods import CLASSES, K, T, step, train
from torch import Tensor, nn

from segloc_train.cli import command
from segloc_train.flags import METHODS
from segloc_train.methods.common.method import Settings
from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import load_tensors, save_tensors
from segloc_train.model.imagenet import fetch, pretrained
from segloc_train.model.start import check_normalisation, initialise, origin
from segloc_train.model.trunk import Shape, build_trunk, check_arch, maps, tokens
from segloc_train.run.export import export

LITE0, ATTO, SWIN, TINY = (
    "tf_efficientnet_lite0",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
)
CATS = {281, 282, 285}  # ImageNet's tabby, tiger cat and Egyptian cat


def refusal(arch: str) -> str:
    with pytest.raises(click.ClickException) as error:
        check_arch(arch)
    assert "\n" not in error.value.message
    return error.value.message


def test_lite0_of_the_package_sees_a_cat() -> None:
    known = pretrained(LITE0)
    plain = timm.create_model(LITE0).eval()
    counters = {name: x for name, x in plain.state_dict().items() if name.endswith("num_batches_tracked")}
    plain.load_state_dict(counters | fetch(known))  # strictly
    cat = cv2.resize(skimage.data.cat(), None, fx=0.8, fy=0.8)[:224, 100:324]
    picture = torch.from_numpy(cat).permute(2, 0, 1)[None] / 255
    shape = build_trunk(LITE0)[1]
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (shape.mean, shape.std))
    with torch.no_grad():
        assert set(plain((picture - mean) / std)[0].topk(3).indices.tolist()) == CATS
    assert pretrained(f"{LITE0}.in1k") == known
    backbone = SDANet(LITE0, 8)
    told = initialise(backbone, LITE0, "imagenet")
    assert "licence Apache-2.0" in told and str(known.file) in told
    assert all(torch.equal(x, plain.state_dict()[name]) for name, x in backbone.trunk.state_dict().items())


@pytest.mark.parametrize("arch", [LITE0, ATTO, SWIN, TINY])
def test_an_exported_trunk_is_the_plain_model_of_timm(tmp_path: Path, arch: str) -> None:
    torch.manual_seed(0)
    backbone = SDANet(arch, 8).eval()
    export(backbone, arch, tmp_path, {})
    plain: Any = timm.create_model(arch, num_classes=0).eval()
    images = torch.randn(1, 3, 224, 224)
    for name in ("trunk.pth", "trunk.safetensors"):
        found = plain.load_state_dict(load_tensors(tmp_path / name), strict=False)
        assert found.unexpected_keys == [] and found.missing_keys == told(tmp_path)["behind"]
    with torch.no_grad():
        ours = maps(backbone.trunk, backbone.shape, images)
        if arch == TINY:  # the tokens, before anything is pooled
            theirs = [plain.forward_features(images)[:, 1:].transpose(1, 2).unflatten(2, (14, 14))]
        else:
            theirs = plain.forward_intermediates(images, intermediates_only=True)[-4:]
    for one, two in zip(ours, theirs, strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    assert not (tmp_path / "detector_init.pth").exists()
    other = SDANet(arch, 8)
    initialise(other, arch, str(tmp_path / "trunk.safetensors"))
    assert all(torch.equal(x, other.trunk.state_dict()[name]) for name, x in backbone.trunk.state_dict().items())


def told(folder: Path) -> dict[str, Any]:
    from segloc_synth.files import read_json

    value: dict[str, Any] = read_json(folder / "meta.json")
    return value


@pytest.mark.parametrize("arch", ["resnet18", LITE0, ATTO, SWIN, TINY, f"{TINY}@8", "vit_small_patch14_dinov2"])
def test_levels_lie_at_their_strides(arch: str) -> None:
    check_arch(arch)
    with torch.device("meta"):
        backbone = SDANet(arch, 8).eval()
        for side in (64, 160):
            levels = backbone(torch.empty(2, 3, side, side))
            cells = [-(-side // stride) for stride in (4, 8, 16, 32, 64)]
            assert [tuple(x.shape) for x in levels] == [(2, 8, n, n) for n in cells]


class Means(nn.Module):
    """In place of a ViT of this patch: each token is its patch's mean colour."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.patch = patch

    def forward_intermediates(self, x: Tensor, **_: Any) -> list[Tensor]:
        return [nn.functional.avg_pool2d(x, self.patch)]


@pytest.mark.parametrize("patch", [8, 14, 16, 18])
def test_tokens_lie_where_cells_of_the_stride_do(patch: int) -> None:
    """A picture that holds its own coordinates: a token of stride S at column i shows that of the cell's middle."""
    side, stride = 160, 8 if patch == 8 else 16
    columns = torch.arange(side).float().expand(1, 3, side, side)
    found = tokens(Means(patch), Shape((3,), (patch,), (0,)), columns)
    middles = torch.arange(side // stride) * stride + (stride - 1) / 2
    inside = slice(1, -2)  # at the border patches are padded
    assert found.shape == (1, 3, side // stride, side // stride)
    assert torch.allclose(found[0, 0, 3, inside], middles[inside], atol=1e-3)


def test_wrong_names_list_the_nearest_and_other_trunks_say_why() -> None:
    assert "is unknown; the nearest are convnext_tiny, " in refusal("convnext_tyni")
    assert "resnet18" in refusal("resnet_18") and "is unknown" in refusal("resnet50.")
    assert "its maps have strides 16, 32, 64; a pyramid needs 4, 8, 16 and 32" in refusal("levit_128")
    assert "takes no pictures of 64 pixels; its weights are tied to a picture's size" in refusal("coatnet_nano_rw_224")
    assert "Invalid pretrained tag (nix)" in refusal("convnext_tiny.nix")
    check_arch("deit_tiny_distilled_patch16_224")  # its class hides what it takes
    assert "has no patches" in refusal("resnet26d@8") and "4 to 32 pixels" in refusal(f"{TINY}@0")
    assert "4 to 32 pixels" in refusal(f"{TINY}@08")


def test_drop_path_is_zero_and_normalisation_is_the_weights(tmp_path: Path) -> None:
    backbone = SDANet(SWIN, 8)
    assert {part.drop_prob for part in backbone.modules() if hasattr(part, "drop_prob")} == {0.0}
    assert SDANet(TINY, 8).shape.mean == (0.5, 0.5, 0.5) and backbone.shape.std == (0.229, 0.224, 0.225)
    file = tmp_path / "meta.json"
    file.write_text('{"mean": [0.5, 0.5, 0.5]}')
    with pytest.raises(click.ClickException, match=r"meta.json: mean is \[0.5, 0.5, 0.5\], and pictures"):
        check_normalisation(backbone, file)
    save_tensors(tmp_path / "trunk.pth", backbone.trunk.state_dict())
    with pytest.raises(click.ClickException, match=r"meta.json: mean is"):
        initialise(backbone, SWIN, str(tmp_path / "trunk.pth"))
    file.write_text('{"arch": "of before"}')
    check_normalisation(backbone, file)
    assert initialise(backbone, SWIN, str(tmp_path / "trunk.pth")).startswith("trunk from")


def test_weights_of_another_patch_or_as_published_are_brought_into_shape(tmp_path: Path) -> None:
    file = tmp_path / "vit.pth"
    plain: Any = timm.create_model(TINY)
    save_tensors(file, plain.state_dict())
    finer = SDANet(f"{TINY}@8", 8)
    before = finer.trunk.state_dict()["patch_embed.proj.weight"].clone()
    initialise(finer, f"{TINY}@8", str(file))
    own = finer.trunk.state_dict()
    assert own["patch_embed.proj.weight"].shape[-1] == 8 and not torch.equal(own["patch_embed.proj.weight"], before)
    assert torch.equal(own["blocks.0.attn.qkv.weight"], plain.state_dict()["blocks.0.attn.qkv.weight"])
    assert own["pos_embed"].shape[1] == 1 + 28 * 28 and torch.equal(own["pos_embed"][:, 0], plain.pos_embed[:, 0])

    dino: Any = timm.create_model("vit_small_patch14_dinov2", num_classes=0)
    save_tensors(file, {**dino.state_dict(), "mask_token": torch.zeros(1, 384)})  # as they are published
    small = SDANet("vit_small_patch14_dinov2", 8)
    initialise(small, "vit_small_patch14_dinov2", str(file))
    assert all(torch.equal(x, dino.state_dict()[name]) for name, x in small.trunk.state_dict().items())


def test_where_weights_lie_of_which_timm_knows_an_address_or_a_package_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    known = pretrained("legacy_seresnet18")
    assert known.file.name == Path(known.url).name and known.url.startswith("http")
    monkeypatch.setattr("segloc_train.model.imagenet.files", lambda _: [Gone("lite0.pth")])
    assert "huggingface.co/timm/tf_efficientnet_lite0" in pretrained(LITE0).url


class Gone(PurePosixPath):
    """A file that a package lists, and that is not there."""

    def locate(self) -> str:
        return "/nowhere/lite0.pth"


@pytest.mark.parametrize("arch", ["resnet18", LITE0, ATTO, TINY])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("thin")
def test_every_method_trains_every_kind_of_trunk_and_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, name: str
) -> None:
    monkeypatch.setattr("tests.train.test_methods.step", lambda number: replace(step(number), crop=0.5))

    torch.manual_seed(1)
    own = torch.Generator().manual_seed(1)
    kind = import_module(f"segloc_train.methods.{name}").Method
    whole: Any = kind(Settings(arch, 16, CLASSES, K, T, own, torch.device("cpu"))).train()
    resumed = copy.deepcopy(whole)
    before = {key: x.clone() for key, x in whole.query.backbone.trunk.named_parameters()}
    first = train(whole, range(1))
    save_tensors(tmp_path / "state.pt", whole.state_dict())
    last = train(whole, range(1, 2))
    assert all(x.isfinite().all() for x in (*first, *last))
    moved = [key for key, x in whole.query.backbone.trunk.named_parameters() if not torch.equal(x, before[key])]
    assert len(moved) > 0.9 * len(before)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(train(resumed, range(1, 2))[0], last[0])
    for (key, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert not isinstance(one, Tensor) or torch.equal(one, two), key


@pytest.mark.usefixtures("bare")
def test_imagenet_of_timm_says_what_to_fetch_and_starts_from_it(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    args = ["--shards", str(shards), "--out", str(tmp_path / "run"), "--arch", ATTO, "--init", "imagenet", "--width=64"]
    args += ["--epochs", "1", "--batch-size", "80"]
    failed = CliRunner().invoke(command, args)
    place = pretrained(ATTO).file
    assert failed.exit_code == 1 and not (tmp_path / "run").exists()
    assert (
        "convnext_atto.d2_in1k/resolve/main/model.safetensors (no route to host); fetch it elsewhere" in failed.output
    )
    assert failed.output.strip().endswith(f"and put it at {place}")
    save_file(timm.create_model(ATTO).state_dict(), place)
    done = CliRunner().invoke(command, args)
    assert done.exit_code == 0, done.output
    assert origin(ATTO, str(tmp_path / "run")) == origin(ATTO, "imagenet") == told(tmp_path / "run")["pretrained"]
    assert told(tmp_path / "run")["pretrained"] == {
        "file": "convnext_atto.d2_in1k.safetensors",
        "tag": "convnext_atto.d2_in1k",
        "licence": "apache-2.0",
    }
