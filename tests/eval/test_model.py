"""The detectors: strict loading, equal heads for all arms, and what mmdet's own configs make of our exports."""

import errno
import json
import os
import pickle
from dataclasses import replace
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import URLError

import click
import mmdet
import pytest
import torch
import torchvision
from mmdet.registry import MODELS
from mmengine.config import Config
from PIL import Image
from tests.train.conftest import make_shards
from torch import nn

from segloc_eval.cli import command
from segloc_eval.mm.data import prepared
from segloc_eval.mm.heads import places
from segloc_eval.mm.model import build_detector, load_arm, load_detector
from segloc_eval.recipe import DETECTORS, PAPER, QUICK, DetectorName, Recipe
from segloc_synth import console
from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import load_tensors, save_tensors
from segloc_train.run.export import export

pytestmark = pytest.mark.usefixtures("one_thread", "thin")
WIDTH = 16
TINY = QUICK.changed(arch="resnet18", width=WIDTH, size=64)
CLASSES = {1: "Baton", 5: "Scissors", 7: "Gun"}


def detector(name: DetectorName = "cascade-mask-rcnn", seed: int = 0) -> Any:
    return build_detector(TINY, name, len(CLASSES), seed)


def load(built: Any, source: Path | str, name: DetectorName = "cascade-mask-rcnn") -> str:
    return load_arm(built, str(source), TINY, name, list(CLASSES.values()))


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return SDANet("resnet18", WIDTH).state_dict()


@pytest.mark.parametrize("name", DETECTORS)
def test_heads_are_the_same_whatever_the_backbone_starts_from(tmp_path: Path, name: DetectorName) -> None:
    save_tensors(tmp_path / "backbone.safetensors", weights(3))
    torch.manual_seed(4)
    trunk = torchvision.models.resnet18(weights=None).state_dict()
    save_tensors(tmp_path / "anyones.pth", trunk)
    arms = {source: detector(name) for source in ("random", "backbone.safetensors", "anyones.pth")}
    for source, built in arms.items():
        load(built, source if source == "random" else tmp_path / source, name)
    states = {source: built.state_dict() for source, built in arms.items()}
    heads = [key for key in states["random"] if not key.startswith("backbone.")]
    assert len(heads) > 8
    assert all(torch.equal(state[key], states["random"][key]) for key in heads for state in states.values())
    loaded = states["backbone.safetensors"]
    assert all(torch.equal(loaded[f"backbone.{key}"], value) for key, value in weights(3).items())
    assert torch.equal(states["anyones.pth"]["backbone.trunk.conv1.weight"], trunk["conv1.weight"])


def test_a_run_folder_and_an_epoch_of_one_load_alike(tmp_path: Path) -> None:
    export(SDANet("resnet18", WIDTH), "resnet18", tmp_path, {})
    save_tensors(tmp_path / "epoch_003.pt", load_tensors(tmp_path / "backbone.pth"))
    first, second = detector(), detector()
    load(first, tmp_path)
    load(second, tmp_path / "epoch_003.pt")
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    with pytest.raises(click.ClickException, match=r"detector_init.pth: is a start for stock mmdet configs"):
        load(first, tmp_path / "detector_init.pth")


def keep(folder: Path, built: nn.Module, name: DetectorName = "cascade-mask-rcnn", **changed: Any) -> Path:
    """A fine-tuned detector as segloc-eval leaves it."""
    folder.mkdir(exist_ok=True)
    save_tensors(folder / "detector.pth", built.state_dict())
    classes = [{"id": id, "name": name} for id, name in CLASSES.items()]
    about = {"detector": name, "recipe": TINY.as_dict(), "classes": classes}
    (folder / "detector.json").write_text(json.dumps({**about, **changed}))
    return folder


def test_a_fine_tuned_detector_is_an_arm_with_its_heads(tmp_path: Path) -> None:
    trained = detector(seed=9)
    folder = keep(tmp_path / "unit", trained)
    for source in (folder, folder / "detector.pth"):
        built = detector(seed=0)
        assert "heads included" in load(built, source)
        assert all(torch.equal(value, trained.state_dict()[name]) for name, value in built.state_dict().items())
    again, about = load_detector(folder)
    assert about.classes == CLASSES and about.recipe == TINY
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize("recipe", [TINY, PAPER.changed(arch="resnet18", width=WIDTH, size=64)])
@pytest.mark.parametrize("name", DETECTORS)
def test_heads_of_a_detector_follow_the_names_of_the_classes(
    tmp_path: Path, name: DetectorName, recipe: Recipe
) -> None:
    """Predictions of the classes in common are those of the detector that it starts from, whatever their places."""
    theirs, ours = ["Gas", "Gun", "Baton", "Knife"], ["baton", "Scissors", "Gun"]
    source, built, fresh = (
        build_detector(recipe, name, len(names), seed) for names, seed in ((theirs, 9), (ours, 0), (ours, 0))
    )
    classes = [{"id": id, "name": other} for id, other in enumerate(theirs)]
    folder = keep(tmp_path / "unit", source, name, classes=classes, recipe=recipe.as_dict())
    told = load_arm(built, str(folder), recipe, name, ours)
    assert told.endswith("at random for Scissors")
    before, start, after = (model.state_dict() for model in (source, fresh, built))
    last = [key for key in after if before[key].shape != after[key].shape]
    assert all(torch.equal(after[key], before[key]) for key in after if key not in last)
    assert last
    for key in last:
        rows = 4 if "fc_reg" in key else 1
        old, new, random = (x[key].unflatten(0, (-1, rows)) for x in (before, after, start))
        assert torch.equal(new[[0, 2]], old[[2, 1]]) and torch.equal(new[1], random[1])
        assert torch.equal(new[3:], old[4:]), "background"


def test_case_counts_where_it_tells_classes_apart() -> None:
    assert places(["Gas", " gun"], ["Gun", "gas"]) == [1, 0]
    assert places(["gun", "Knife"], ["Gun", "gun", "knife"]) == [None, 0, 1]
    assert places(["gun", "GUN"], ["Gun"]) == [None]


@pytest.mark.parametrize(("name", "twin"), [("mask-rcnn", "faster-rcnn"), ("cascade-mask-rcnn", "cascade-rcnn")])
def test_a_detector_goes_on_without_its_mask_head_and_with_a_new_one(
    tmp_path: Path, name: DetectorName, twin: DetectorName
) -> None:
    for first, second in ((name, twin), (twin, name)):
        source, built, fresh = detector(first, 9), detector(second), detector(second)
        load(built, keep(tmp_path / first, source, first), second)
        before, start, after = (model.state_dict() for model in (source, fresh, built))
        assert all(torch.equal(x, before.get(key, start[key])) for key, x in after.items())
        assert all(key in before or "mask_head" in key for key in after)


def test_a_detector_that_places_boxes_by_class_starts_one_that_does_not(tmp_path: Path) -> None:
    """Those of before placed by class, and their detector.json does not tell."""
    before = replace(TINY, agnostic=False, roi_samples=2)
    assert not {"agnostic", "roi_samples"} & set(before.as_dict())
    old, new, fresh = (build_detector(r, "mask-rcnn", 3, seed) for r, seed in ((before, 1), (TINY, 2), (TINY, 2)))
    known = [{"id": id, "name": name} for id, name in enumerate(["Gun", "Gas", "Baton"])]
    folder = keep(tmp_path / "unit", old, "mask-rcnn", classes=known, recipe=before.as_dict())
    told = load_arm(new, str(folder), TINY, "mask-rcnn", ["Gun", "Knife", "Gas"])
    assert told.endswith("but at random for the placing of boxes, Knife")
    for key, x in new.state_dict().items():
        if "fc_reg" in key:
            assert torch.equal(x, fresh.state_dict()[key])
        elif "fc_cls" not in key:
            assert torch.equal(x, old.state_dict()[key])


def test_a_detector_of_another_recipe_is_one_line(tmp_path: Path) -> None:
    """Also of one class, where the last layers alone could be taken for those of the other recipe."""
    paper = PAPER.changed(arch="resnet18", width=WIDTH, size=64)
    for classes in (["Gun"], ["Gun", "Gas", "Baton"]):
        for own, other in ((TINY, paper), (paper, TINY)):
            known = [{"id": id, "name": name} for id, name in enumerate(classes)]
            source = build_detector(own, "mask-rcnn", len(classes), 0)
            folder = keep(tmp_path / "unit", source, "mask-rcnn", classes=known, recipe=own.as_dict())
            for ours in (classes, ["Gun", "Knife"]):
                built = build_detector(other, "mask-rcnn", len(ours), 0)
                with pytest.raises(click.ClickException, match=r"mask_head") as error:
                    load_arm(built, str(folder), other, "mask-rcnn", ours)
                assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"classes": ["Baton", "Scissors", "Gun"]}, "no list of distinct ids"),
        ({"classes": [{"id": 1, "name": "Baton"}, {"id": 5, "name": "Gun"}]}, "is not of 2 classes"),
        ({"detector": "mask-rcnn"}, "is a mask-rcnn, not a cascade-mask-rcnn"),
        ({"detector": ["yolo"]}, "is none of"),
        ({"recipe": {**TINY.as_dict(), "arch": "vgg"}}, "arch 'vgg'"),
        ({"recipe": {}}, "no recipe"),
    ],
)
def test_a_detector_of_another_kind_is_one_line(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    built = detector()
    before = {name: value.clone() for name, value in built.state_dict().items()}
    with pytest.raises(click.ClickException, match=reason) as error:
        load(built, keep(tmp_path, detector(seed=9), **changed) / "detector.pth")
    assert "\n" not in error.value.message and str(tmp_path) in error.value.message
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())
    (tmp_path / "detector.json").unlink()
    with pytest.raises(click.ClickException, match=r"no detector\.json beside it"):
        load(built, tmp_path / "detector.pth")


@pytest.mark.parametrize("change", ["rename", "drop", "reshape"])
def test_one_altered_key_is_refused_and_nothing_is_loaded(tmp_path: Path, change: str) -> None:
    tensors = weights(3)
    name = "pyramid.lateral.0.0.weight"
    value = tensors.pop(name)
    if change == "rename":
        tensors[name + "s"] = value
    elif change == "reshape":
        tensors[name] = value[:-1]
    save_tensors(tmp_path / "backbone.pth", tensors)
    built = detector()
    before = {k: v.clone() for k, v in built.state_dict().items()}
    with pytest.raises(click.ClickException, match=name):
        load(built, tmp_path / "backbone.pth")
    assert all(torch.equal(value, before[k]) for k, value in built.state_dict().items())


class Hostile:
    """Creates the file `path` when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("name", ["backbone.pth", "detector.pth", "epoch_001.pt"])
def test_a_hostile_pickle_is_refused_without_running_it(
    tmp_path: Path, name: str, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it reach mmengine's loader, which falls back to unpickling."""
    for loader in ("load_checkpoint", "_load_checkpoint", "CheckpointLoader.load_checkpoint"):
        monkeypatch.setattr(f"mmengine.runner.checkpoint.{loader}", None)
    trap, file = tmp_path / "sprung", keep(tmp_path, detector()) / name
    if legacy:
        file.write_bytes(pickle.dumps({"a": Hostile(trap)}))
    else:
        prefix = "backbone." if name == "detector.pth" else ""
        torch.save({**{prefix + key: x for key, x in weights(0).items()}, "a": Hostile(trap)}, file)
    if name == "detector.pth":
        with pytest.raises(click.ClickException, match="refused"):
            load_detector(file)
    with pytest.raises(click.ClickException) as error:
        load(detector(), file)
    assert not trap.exists() and str(file) in error.value.message and "\n" not in error.value.message


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 46830571\n"


def run(monkeypatch: pytest.MonkeyPatch, *args: object) -> object:
    """Exit code of the program."""
    monkeypatch.setattr("sys.argv", ["segloc-eval", *map(str, args)])
    with pytest.raises(SystemExit) as ended:
        console.run(command)
    return ended.value.code


def test_weights_that_are_none_are_told_as_what_they_are(
    tmp_path: Path, wide: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every command that takes weights, before it writes anything."""
    built = detector("faster-rcnn").state_dict()
    name = "backbone.trunk.layer1.0.conv1.weight"
    built[name].view(-1)[5] = float("inf")
    cases: list[tuple[str, dict[str, Any] | bytes, str]] = [
        (
            "lfs/detector.pth",
            POINTER,
            "refused: it is a pointer of Git LFS, not the weights, which git lfs pull fetche",
        ),
        ("page/detector.pth", b"<html>\n<title>Sign in", "refused: it is a web page, not the weights; download the fi"),
        (
            "nan/detector.pth",
            built,
            f"{name} is not finite (nan or inf), as after a training that diverged; name weigh",
        ),
    ]
    out, small = tmp_path / "out", ["--arch", "resnet18", "--width", WIDTH, "--size", 64]
    pairs = make_shards(tmp_path / "pairs", 4)
    for file, value, words in cases:
        path = tmp_path / file
        keep(path.parent, nn.Identity(), "faster-rcnn")
        if isinstance(value, bytes):
            path.write_bytes(value)
        else:
            save_tensors(path, value)
        for args in (
            ("predict", "--ckpt", path, wide / "easy"),
            ("--eval-only", "--ckpt", path, "--data", wide),
            ("--ckpt", "random", "--ckpt", path, "--data", wide, "--labels", 8, "--detector", "faster-rcnn", *small),
            ("pretrain", pairs, "--ckpt", path, "--detector", "faster-rcnn", *small),
        ):
            code = run(monkeypatch, *args, "--out", out, "--device", "cpu")
            last = capsys.readouterr().err.splitlines()[-1]
            assert (code, last.startswith(f"Error: {path}: {words}")) == (1, True), (args, last)
            assert not out.exists()


def test_a_picture_that_may_not_be_read_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("free.png", "locked.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    stat = Path.stat

    def locked(path: Path, **options: Any) -> os.stat_result:
        if path.name == "locked.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", locked)
    weights = keep(tmp_path / "unit", detector("faster-rcnn"), "faster-rcnn")
    args = ("predict", "--ckpt", weights, tmp_path, "--out", tmp_path / "out", "--device", "cpu")
    assert run(monkeypatch, *args) == 3
    assert f"1 skipped: image file may not be read: {tmp_path}/locked.png" in capsys.readouterr().err
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError("no route to host"), "no route to host"),
        (URLError(""), "URLError"),
        (IncompleteRead(b"x"), "Incomplete"),
    ],
)
def test_imagenet_that_cannot_be_fetched_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(click.ClickException, match=rf"^imagenet: cannot fetch \S+ \(.*{reason}.*\); fetch it"):
        load(detector(), "imagenet")
    assert not list(tmp_path.rglob("*.p*")), "no part of a file stays"


def test_imagenet_goes_into_the_trunk_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = torchvision.models.resnet18(weights=None).state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    cached.parent.mkdir(parents=True)
    save_tensors(cached, trunk)
    built = detector()
    before = {k: v.clone() for k, v in built.state_dict().items()}
    load(built, "imagenet")
    for name, value in built.state_dict().items():
        inside = name.startswith("backbone.trunk.")
        expected = trunk[name.removeprefix("backbone.trunk.")] if inside else before[name]
        assert torch.equal(value, expected), name
    cached.write_bytes(cached.read_bytes()[:9000])
    with pytest.raises(click.ClickException, match=rf"^imagenet: {cached}: refused: damaged.*; delete the file"):
        load(built, "imagenet")


@pytest.mark.parametrize(("arch", "white"), [("resnet18", (1 - 0.485) / 0.229), ("tf_efficientnet_lite0", 1.0)])
def test_a_detectors_pictures_are_normalised_as_its_trunk_wants_them(arch: str, white: float) -> None:
    built: Any = build_detector(TINY.changed(arch=arch), "faster-rcnn", 1, 0)
    seen: list[torch.Tensor] = []
    first = next(part for part in built.backbone.trunk.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = {"inputs": [torch.full((3, 64, 64), 255, dtype=torch.uint8)] * 2, "data_samples": None}
    built.eval().backbone(prepared(built, batch, training=False)["inputs"])
    assert torch.allclose(seen[0][:, 0].amax((1, 2)), torch.tensor(white))


def test_a_stock_mmdet_config_takes_detector_init(tmp_path: Path) -> None:
    """mmdet's own Mask R-CNN R-50-FPN, unmodified: every weight of backbone and neck is ours, and so are its maps."""
    torch.manual_seed(3)
    own = SDANet("resnet50", 256).train()
    images = torch.randn(2, 3, 96, 128)
    for norm in own.modules():  # statistics as after training, not zeros and ones
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.1)
    with torch.no_grad():
        own(torch.randn(8, 3, 64, 64))
    export(own.eval(), "resnet18", tmp_path, {})
    config = Path(mmdet.__file__).parent / ".mim" / "configs" / "mask_rcnn" / "mask-rcnn_r50_fpn_1x_coco.py"
    stock = MODELS.build(Config.fromfile(config).model)
    found = stock.load_state_dict(load_tensors(tmp_path / "detector_init.pth"), strict=False)
    assert not found.unexpected_keys
    assert {name.split(".")[0] for name in found.missing_keys} == {"rpn_head", "roi_head"}
    stock.eval()
    trunk, features = own.trunk, []
    with torch.no_grad():
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            features.append(x := stage(x))
        ours, theirs = own.pyramid(features), stock.extract_feat(images)
    assert len(ours) == len(theirs) == 5
    for level, other in zip(ours, theirs, strict=True):
        assert level.std() > 0.05
        torch.testing.assert_close(other, level, rtol=1e-4, atol=1e-4)


def test_every_weight_is_a_function_of_the_seed() -> None:
    first, again, other = (detector(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["roi_head.bbox_head.0.fc_cls.weight"], other["roi_head.bbox_head.0.fc_cls.weight"])
