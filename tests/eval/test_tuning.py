"""Fine-tuning and prediction: what a step sees, that everything is trained, and that a state goes on bit for bit."""

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import instance_data
from pycocotools import mask as coco_mask
from tests.stand_in import AWAY, Away, StandIn
from torch import nn

from segloc_eval.data.datasets import Data, load_data
from segloc_eval.data.scans import Object, Scan
from segloc_eval.mm.configs import detector_config
from segloc_eval.mm.data import Mixture, Stream, batch_order, batches, example, label_map
from segloc_eval.mm.model import build_detector
from segloc_eval.mm.predict import predict
from segloc_eval.mm.tuning import FineTuning, convert_sync_batchnorm
from segloc_eval.recipe import PAPER, QUICK, DetectorName, Recipe
from segloc_train.dist import ALONE, memory_told
from segloc_train.model.backbone import SDANet

pytestmark = pytest.mark.usefixtures("one_thread", "thin")
SIZE = 64
TINY = QUICK.changed(arch="resnet18", width=16, size=SIZE, epochs=2, lr=1e-3)
CPU = torch.device("cpu")
Make = Callable[..., Path]


def read(folder: Path) -> Data:
    return load_data(folder, ["all"], 0)


def labels_of(data: Data) -> dict[int, int]:
    return {id: index for index, id in enumerate(data.classes)}


def tuning(data: Data, recipe: Recipe = TINY, name: DetectorName = "cascade-mask-rcnn", seed: int = 0) -> FineTuning:
    """With a benign scan in every batch, and pasted objects."""
    detector = build_detector(recipe, name, len(data.classes), seed)
    benign = Stream([replace(scan, objects=()) for scan in data.train[:3]], 1)
    mixture = Mixture((benign,), paste=name != "semantic-fpn")
    return FineTuning(detector, data.train, labels_of(data), recipe, seed, ALONE, CPU, mixture)


def advance(run: FineTuning, steps: int | None = None) -> list[dict[str, float]]:
    return [run.advance(batch) for batch in itertools.islice(run.batches(), steps)]


def equal(first: Any, second: Any) -> bool:
    """Are two states, tensors in dicts and lists, the same to the last bit?"""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def stream(scans: int, count: int, first: int = 0) -> Stream:
    return Stream([Scan(id, id, Path(), 1, 1, ()) for id in range(first, first + scans)], count)


def test_every_scan_once_an_epoch_however_it_is_cut() -> None:
    whole = batch_order([stream(10, 28)], 0, 5)
    assert [item for step in range(7) for item in batch_order([stream(10, 4)], step, 5)] == whole
    for epoch in range(2):
        assert sorted(scan.id for _, scan, _ in whole[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert {flip for _, _, flip in whole} == {True, False}
    assert whole[:10] != whole[10:20] and whole != batch_order([stream(10, 28)], 0, 6)
    rng = np.random.default_rng([5, 0])  # what fine-tunings of one stream have always seen
    assert [scan.id for _, scan, _ in whole[:10]] == rng.permutation(10).tolist()


def test_scans_beside_the_labelled_ones_have_their_places_in_every_batch() -> None:
    streams = [stream(10, 4), stream(7, 3, 100), stream(5, 1, 200)]
    batches = [batch_order(streams, step, 5) for step in range(20)]
    for batch in batches:
        assert [number for number, _, _ in batch] == [0, 1, 0, 1, 2, 0, 1, 0]  # so that ranks share all kinds
    flat = [item for batch in batches for item in batch]
    assert [item for item in flat if item[1].id < 100] == batch_order([stream(10, 80)], 0, 5)
    shown = [scan.id for _, scan, _ in flat if 100 <= scan.id < 200]
    assert all(sorted(shown[i : i + 7]) == list(range(100, 107)) for i in range(0, 56, 7))
    assert shown[:7] != [i + 100 for i in np.random.default_rng([5, 0]).permutation(7)]


def test_a_shorter_run_sees_the_same_composites_whatever_longer_ones_need() -> None:
    benign = stream(5, 1)
    for most in (10, 40):  # pictures exported for the longest run
        cut = Mixture((Stream(stream(most, 3).scans, 3, pairs=True), benign)).of_steps(3)
        assert [scan.id for scan in cut.streams[0].scans] == list(range(10)) and cut.streams[1] == benign


@pytest.mark.parametrize("flip", [False, True])
def test_boxes_and_masks_lie_on_their_objects(pidray: Make, flip: bool) -> None:
    data = read(pidray(train=8, test=1, side=150))
    for scan in data.train:
        image, sample = example(scan, SIZE, labels_of(data), flip)
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


def test_the_canvas_fits_the_pyramid_and_the_smaller_object_lies_on_top() -> None:
    masks = np.zeros((3, 20, 30), np.uint8)
    masks[0, 2:12, 3:23] = masks[1, 5:9, 10:14] = masks[2, 0:20, 0:2] = 1
    rles = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks]
    things = tuple(
        Object(str(i), category, (0.0, 0.0, 1.0, 1.0), float(mask.sum()), False, rle)
        for i, (category, mask, rle) in enumerate(zip((7, 1, 5), masks, rles, strict=True))
    )
    scan = Scan(1, 1, Path("x"), 30, 20, (things[1], things[0], things[2]))
    expected = np.full((20, 30), 3)
    expected[masks[0] > 0], expected[masks[2] > 0], expected[masks[1] > 0] = 2, 1, 0
    assert (label_map(scan, {1: 0, 5: 1, 7: 2}) == expected).all()


@pytest.mark.parametrize("flip", [False, True])
def test_labels_of_pixels_lie_under_the_picture(pidray: Make, flip: bool) -> None:
    data = read(pidray(train=2, test=1, side=92))  # 100 pixels wide: the canvas is 128
    scan = data.train[0]
    image, sample = example(scan, 100, labels_of(data), flip, semantic=True)
    truth = sample.gt_sem_seg.sem_seg
    assert image.shape == (3, 128, 128) and truth.shape == (1, 128, 128)
    painted = label_map(scan, labels_of(data))
    assert (truth[0, :92, :100].numpy() == (painted[:, ::-1] if flip else painted)).all()
    assert (truth[0, 92:] == 3).all() and (truth[0, :, 100:] == 3).all() and set(painted.flat) - {3}


@pytest.mark.parametrize("name", ["cascade-mask-rcnn", "faster-rcnn", "semantic-fpn"])
def test_a_state_goes_on_bit_for_bit(pidray: Make, name: DetectorName) -> None:
    data = read(pidray(train=13, test=1))
    whole, stopped = tuning(data, name=name), tuning(data, name=name)
    records = advance(whole)
    assert len(records) == whole.total == 3 and [record["samples"] for record in records] == [8, 16, 24]
    first = advance(stopped, 1)
    buffer = io.BytesIO()
    torch.save(stopped.state(), buffer)
    buffer.seek(0)
    resumed = tuning(data, name=name)
    torch.rand(17), np.random.rand(5)  # wherever the generators stand
    resumed.load(torch.load(buffer, weights_only=True))
    assert first + advance(resumed) == records
    assert equal(resumed.state(), whole.state())
    assert advance(tuning(data, name=name, seed=1), 1)[0]["loss"] != records[0]["loss"]


@pytest.mark.parametrize("name", ["cascade-mask-rcnn", "mask-rcnn", "semantic-fpn"])
def test_everything_is_trained_and_found_in_the_scans_own_pixels(pidray: Make, name: DetectorName) -> None:
    data = read(pidray(train=8, test=2))
    run = tuning(data, name=name)
    before = {key: value.detach().clone() for key, value in run.detector.named_parameters()}
    assert len(advance(run)) == 2
    still = [key for key, value in run.detector.named_parameters() if torch.equal(value, before[key])]
    # the context blocks start as the identity, so what feeds them has no gradient in the first step
    unused = ("refine", "attention.4") if name == "semantic-fpn" else ("refine",)
    assert not [key for key in still if not any(part in key for part in unused)]
    norms = [module for module in run.detector.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and {int(norm.num_batches_tracked or 0) for norm in norms} == {2}
    scans = data.tests["hard"]
    found = list(predict(run.detector, scans, list(data.classes), TINY, CPU))
    assert len(found) == len(scans) and (any(found) or name == "semantic-fpn")
    assert found == list(predict(run.detector, scans, list(data.classes), TINY, CPU))
    for scan, results in zip(scans, found, strict=True):
        for result in results:
            assert result["image_id"] == scan.id and result["category_id"] in data.classes
            assert result["segmentation"]["size"] == [scan.height, scan.width]
            if name != "semantic-fpn":
                x, y, w, h = result["bbox"]
                assert x >= 0 and y >= 0 and x + w <= scan.width + 0.02 and y + h <= scan.height + 0.02
                assert result["score"] >= TINY.threshold
        assert len(results) <= (3 if name == "semantic-fpn" else TINY.detections)


def test_a_semantic_detector_learns_where_the_objects_are(pidray: Make) -> None:
    data = read(pidray(train=8, test=2))
    run = tuning(data, TINY.changed(epochs=40, lr=3e-3), "semantic-fpn")
    advance(run)
    scans = data.train[:4]
    hits = total = 0
    for scan, results in zip(scans, predict(run.detector, scans, list(data.classes), TINY, CPU), strict=True):
        truth, found = label_map(scan, labels_of(data)), np.full((scan.height, scan.width), 3)
        for result in results:
            found[coco_mask.decode(result["segmentation"]) > 0] = labels_of(data)[result["category_id"]]
        hits += int(((truth == found) & (truth < 3)).sum())
        total += int(((truth < 3) | (found < 3)).sum())
    assert hits / total > 0.3


def test_small_batches_leave_the_pooled_statistics_alone(pidray: Make) -> None:
    run = tuning(read(pidray(train=4, test=1)), TINY.changed(batch_size=4, epochs=1))
    advance(run)
    for name, module in run.detector.backbone.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert int(module.num_batches_tracked or 0) == (0 if "attention" in name else 1), name


def test_boxes_only_has_no_mask_head(lone_json: Make) -> None:
    data = read(lone_json(scans=20))
    run = tuning(data, TINY.changed(epochs=1), "cascade-rcnn")
    assert not run.detector.with_mask
    records = advance(run, 1)
    assert not any("mask" in name for name in records[0])
    (found, *_) = predict(run.detector, data.tests["test"], list(data.classes), TINY, CPU)
    assert found and all("segmentation" not in result for result in found)


def test_the_published_recipe_has_full_heads_and_steps_with_sgd(pidray: Make) -> None:
    head = detector_config(PAPER, "cascade-mask-rcnn", 12)["roi_head"]
    assert {box["fc_out_channels"] for box in head["bbox_head"]} == {1024}
    assert head["mask_head"]["num_convs"] == 4 and head["mask_head"]["conv_out_channels"] == 256
    data = read(pidray(train=4, test=1))
    run = tuning(data, PAPER.changed(arch="resnet18", width=16, size=64, batch_size=4, epochs=1))
    assert isinstance(run.optimiser, torch.optim.SGD) and run.optimiser.defaults["momentum"] == 0.9
    before = [value.detach().clone() for value in run.trained]
    (record,) = advance(run)
    assert record["lr"] == pytest.approx(0.02 / 4 / 3)
    assert sum(not torch.equal(x, y) for x, y in zip(before, run.trained, strict=True)) > 0.8 * len(before)


@pytest.mark.parametrize("at", ["loss", "gradient"])
def test_what_is_not_finite_is_named_and_leaves_the_weights(pidray: Make, at: str) -> None:
    data = read(pidray(train=8, test=1))
    run = tuning(data)
    advance(run, 1)
    if at == "loss":
        nn.init.constant_(run.detector.roi_head.bbox_head[0].fc_cls.weight, float("inf"))
    else:
        run.detector.rpn_head.rpn_cls.weight.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: value.clone() for name, value in run.detector.named_parameters()}
    with pytest.raises(click.ClickException) as error:
        advance(run, 1)
    message = error.value.message
    assert message.startswith(f"the {at} is nan at step 2 of 2 (scans xray_train") and message.endswith("lower --lr")
    assert all(torch.equal(value, before[name]) for name, value in run.detector.named_parameters()) and run.step == 1


def test_out_of_memory_names_the_remedy(pidray: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tuning(read(pidray(train=8, test=1)))

    def exhaust(*args: object, **kwargs: object) -> None:
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(type(run.detector), "extract_feat", exhaust)
    message = "out of memory with 8 scans of 64 pixels a step; lower --batch-size or --size"
    with pytest.raises(click.ClickException, match=f"^{message}$"):
        advance(run)
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")):
        with pytest.raises(click.ClickException, match="out of memory"), memory_told("x", "y"):
            raise error
    with pytest.raises(RuntimeError, match="another"), memory_told("x", "y"):
        raise RuntimeError("another mistake")


@pytest.mark.parametrize("error", [RuntimeError("Cannot allocate memory (12)"), MemoryError("no room")])
def test_a_failing_reading_process_names_the_cause(error: Exception) -> None:
    def make(number: int) -> list[Any]:
        raise error

    (told,) = batches(range(3), make, torch.device("cuda"))  # read ahead as for a GPU
    assert isinstance(told, click.ClickException)
    assert told.message == f"reading the scans failed: {type(error).__name__}: {error}"


def test_ranks_must_share_a_batch_alike(pidray: Make) -> None:
    data = read(pidray(train=8, test=1))
    detector = build_detector(TINY, "faster-rcnn", len(data.classes), 0)
    with pytest.raises(click.ClickException, match="--batch-size 8 cannot be shared by 3 ranks"):
        FineTuning(detector, data.train, labels_of(data), TINY, 0, replace(ALONE, size=3), CPU)


def test_a_picture_that_changed_since_is_named(pidray: Make) -> None:
    data = read(pidray(train=8, test=1))
    data.train[3].path.write_bytes(b"no picture")
    with pytest.raises(click.ClickException, match=rf"^{data.train[3].path}: .* it was changed since"):
        advance(tuning(data))


@pytest.mark.parametrize("name", ["cascade-mask-rcnn", "semantic-fpn"])
def test_on_a_device_it_computes_the_same(
    pidray: Make, name: DetectorName, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing left in the host's memory that an operation needs; the scans come from other processes."""
    data = read(pidray(train=8, test=2, side=150))
    recipe = replace(TINY, optimiser="sgd")  # fused AdamW needs a real device
    scans = data.tests["easy"]

    def done(device: torch.device) -> list[float]:
        detector = build_detector(recipe, name, len(data.classes), 0)
        run = FineTuning(detector, data.train, labels_of(data), recipe, 0, ALONE, device)
        told = [value for record in advance(run, 2) for value in record.values()]
        found = [result for scan in predict(detector, scans, list(data.classes), recipe, device) for result in scan]
        assert found
        for one in found:
            told += [one["category_id"], *one.get("bbox", ()), one.get("score", 0), coco_mask.area(one["segmentation"])]
        return told

    here = done(CPU)
    known, tolist = instance_data.get_args, torch.Tensor.tolist
    # mmengine asks for a tensor's type
    monkeypatch.setattr(instance_data, "get_args", lambda kind: (*known(kind), Away))
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: tolist(x.held if isinstance(x, Away) else x))
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # in which operations do not come by the stand-in
    with stand_in:
        assert done(AWAY) == pytest.approx(here, rel=1e-4)
    assert stand_in.waits, "boxes are chosen by the host"


def test_synchronised_norms_keep_the_activations_in_them() -> None:
    torch.manual_seed(0)
    backbone = SDANet("tf_efficientnet_lite0", 8).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, after = backbone(images), convert_sync_batchnorm(backbone).eval()(images)
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(before, after, strict=True))
