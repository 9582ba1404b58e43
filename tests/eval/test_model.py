"""The detector: strict loading, equal heads for all arms, and fine-tuning that repeats."""

import pickle
from collections.abc import Callable, Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import URLError

import click
import cv2
import pytest
import torch
import torchvision
from mmdet.registry import MODELS
from torch import nn

from segloc_eval.datasets import load_data
from segloc_eval.mm.model import MEAN, STD, build_detector, load_backbone, load_imagenet
from segloc_eval.mm.run import Schedule, batch_order, example, fine_tune, predict
from segloc_train import augment
from segloc_train.backbone import SDANet
from segloc_train.checkpoint import load_strict, load_tensors, save_tensors
from segloc_train.export import export

WIDTH, SIZE = 16, 64
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def detector(masks: bool = True, seed: int = 0) -> Any:
    return build_detector("resnet18", WIDTH, 3, masks, SIZE, seed)


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return SDANet("resnet18", WIDTH).state_dict()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_pretrained_weights_load_strictly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"backbone.{suffix}"
    save_tensors(path, weights(3))
    built = detector()
    heads = {k: v.clone() for k, v in built.state_dict().items() if not k.startswith("backbone.")}
    load_backbone(built, path)
    loaded = built.state_dict()
    assert all(torch.equal(loaded[f"backbone.{name}"], value) for name, value in weights(3).items())
    assert all(torch.equal(loaded[name], value) for name, value in heads.items()) and len(heads) > 30


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
        load_backbone(built, tmp_path / "backbone.pth")
    assert all(torch.equal(value, before[k]) for k, value in built.state_dict().items())


class Hostile:
    """Creates the file `path` when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("legacy", [True, False])
def test_a_hostile_pickle_is_refused_without_running_it(tmp_path: Path, legacy: bool) -> None:
    trap, file = tmp_path / "sprung", tmp_path / "backbone.pth"
    if legacy:
        file.write_bytes(pickle.dumps({"a": Hostile(trap)}))
    else:
        torch.save({**weights(0), "a": Hostile(trap)}, file)
    with pytest.raises(click.ClickException) as error:
        load_backbone(detector(), file)
    assert not trap.exists() and str(file) in error.value.message and "\n" not in error.value.message


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
        load_imagenet(detector(), "resnet18")
    assert not list(tmp_path.rglob("*.p*")), "no part of a file stays"


def test_imagenet_goes_into_the_trunk_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = torchvision.models.resnet18(weights=None).state_dict()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / Path(torchvision.models.ResNet18_Weights.DEFAULT.url).name
    cached.parent.mkdir(parents=True)
    save_tensors(cached, trunk)
    built = detector()
    before = {k: v.clone() for k, v in built.state_dict().items()}
    load_imagenet(built, "resnet18")
    for name, value in built.state_dict().items():
        inside = name.startswith("backbone.trunk.")
        expected = trunk[name.removeprefix("backbone.trunk.")] if inside else before[name]
        assert torch.equal(value, expected), name
    cached.write_bytes(cached.read_bytes()[:9000])
    with pytest.raises(click.ClickException, match=rf"^imagenet: {cached}: refused: damaged.*; delete the file"):
        load_imagenet(built, "resnet18")


def test_pixels_are_normalised_as_in_pretraining() -> None:
    scaled = torch.tensor([augment.MEAN, augment.STD]) * 255
    assert torch.allclose(torch.tensor([MEAN, STD]), scaled, atol=1e-3)


def test_detector_init_fits_a_stock_resnet_and_fpn(tmp_path: Path) -> None:
    torch.manual_seed(3)
    export(SDANet("resnet18", WIDTH), tmp_path, {})
    neck = {"type": "FPN", "in_channels": [64, 128, 256, 512], "out_channels": WIDTH, "num_outs": 5}
    stock = nn.ModuleDict({"backbone": MODELS.build({"type": "ResNet", "depth": 18}), "neck": MODELS.build(neck)})
    tensors = load_tensors(tmp_path / "detector_init.pth")
    load_strict(stock, tensors, "detector_init.pth")
    assert all(torch.equal(value, tensors[name]) for name, value in stock.state_dict().items())


def test_every_weight_is_a_function_of_the_seed() -> None:
    first, again, other = (detector(seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["roi_head.bbox_head.0.fc_cls.weight"], other["roi_head.bbox_head.0.fc_cls.weight"])


def test_every_scan_once_an_epoch_and_every_batch_full() -> None:
    schedule = Schedule(epochs=3, batch_size=4, lr=0.1, size=SIZE, seed=5)
    steps = schedule.steps(10)
    assert steps == 7
    seen = [item for step in range(steps) for item in batch_order(10, step, schedule)]
    for epoch in range(2):
        assert sorted(index for index, _ in seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert {flip for _, flip in seen} == {True, False}


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_and_masks_lie_on_their_objects(pidray: Callable[..., Path], flip: bool) -> None:
    data = load_data(pidray(train=8, test=1, side=150), ["all"], 0)
    labels = {id: index for index, id in enumerate(data.classes)}
    for scan in data.train:
        image, sample = example(scan, SIZE, labels, flip)
        height, width = sample.img_shape
        assert width == SIZE and height == round(SIZE * 150 / 158) and (image[:, height:] == 255).all()
        masks = sample.gt_instances.masks.masks
        for mask, box, label in zip(masks, sample.gt_instances.bboxes, sample.gt_instances.labels, strict=True):
            rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
            tight = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert (tight - box).abs().max() <= 1.5
            assert scan.objects[masks.tolist().index(mask.tolist())].category_id == list(data.classes)[int(label)]
        top = masks[-1] > 0  # drawn last: nothing covers it, so it has one colour
        inside = image[:, :height][:, torch.from_numpy(cv2.erode(top.astype("uint8"), None, iterations=2) > 0)]
        assert inside.shape[1] > 3 and inside.float().std(1).max() < 3


def train(built: Any, folder: Path, batch_size: int = 8, epochs: int = 2) -> list[dict[str, float]]:
    data = load_data(folder, ["all"], 0)
    labels = {id: index for index, id in enumerate(data.classes)}
    schedule = Schedule(epochs=epochs, batch_size=batch_size, lr=1e-3, size=SIZE, seed=0)
    return list(fine_tune(built, data.train, labels, schedule, CPU))


def test_same_seed_same_losses_and_everything_is_trained(pidray: Callable[..., Path]) -> None:
    folder = pidray(train=8, test=2)
    first, second = detector(), detector()
    before = {name: value.detach().clone() for name, value in first.named_parameters()}
    losses = train(first, folder)
    assert losses == train(second, folder) and len(losses) == 2
    assert all("loss_mask" in " ".join(record) for record in losses)
    still = [name for name, value in first.named_parameters() if torch.equal(value, before[name])]
    # the context blocks start as the identity, so what feeds them has no gradient in the first step
    assert not [name for name in still if "refine" not in name]
    norms = [m for m in first.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(int(m.num_batches_tracked or 0) == 2 for m in norms)
    data = load_data(folder, ["all"], 0)
    results = [list(predict(built, data.tests["hard"], list(data.classes), SIZE, CPU)) for built in (first, second)]
    assert results[0] == results[1] and len(results[0]) == 2
    scan = data.tests["hard"][0]
    for result in results[0][0]:
        assert result["image_id"] == scan.id and result["category_id"] in data.classes
        assert result["segmentation"]["size"] == [scan.height, scan.width]
        x, y, w, h = result["bbox"]
        assert x >= 0 and y >= 0 and x + w <= scan.width + 0.02 and y + h <= scan.height + 0.02


def test_small_batches_leave_the_pooled_statistics_alone(pidray: Callable[..., Path]) -> None:
    built = detector()
    train(built, pidray(train=4, test=1), batch_size=4, epochs=1)
    for name, module in built.backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert int(module.num_batches_tracked or 0) == (0 if "attention" in name else 1), name


def test_boxes_only_has_no_mask_head(lone_json: Callable[..., Path]) -> None:
    folder = lone_json(scans=20)
    built = detector(masks=False)
    assert not built.with_mask
    losses = train(built, folder, epochs=1)
    assert losses and not any("mask" in name for record in losses for name in record)
    data = load_data(folder, ["all"], 0)
    (found, *_) = predict(built, data.tests["test"], list(data.classes), SIZE, CPU)
    assert found and all("segmentation" not in result for result in found)
