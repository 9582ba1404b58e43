"""The figures told before a run: counted against layers done by hand, and the time in words of the right size."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from segloc_train.config import resolve
from segloc_train.data.data import View
from segloc_train.model.encoder import Encoder
from segloc_train.model.head import RoiHead
from segloc_train.summary import KEPT, Cost, dry_run, expected_time, pair_seconds, sample_flops, summary

OPTIONS = {
    **{"method": "segloc", "shards": ["pairs"], "weights": [], "stream": False, "decode": "workers", "init": "random"},
    **{
        "on_bad_shard": "stop",
        "cache_limit": 50.0,
        "compile": False,
        "precision": "auto",
        "arch": "resnet18",
        "width": 64,
        "epochs": 2,
        "batch_size": 32,
        "queue_size": 100,
    },
    **{
        "lr": 0.03,
        "momentum_key": None,
        "temperature": 0.2,
        "augment": "mild",
        "crop": 1.0,
        "optimizer": "sgd",
        "bn_group": None,
        "seed": 0,
    },
    **{"workers": 0, "device": "cpu", "save_every": 0},
}


@pytest.mark.parametrize(
    ("given", "lr", "m", "k", "crop"),
    [
        ({"optimizer": "adamw"}, 0.004, 0.0, 256, 0.5),
        ({"optimizer": "sgd", "augment": "none"}, 0.03, 0.0, 256, 1.0),
        ({"optimizer": "adamw", "momentum_key": 0.999}, 0.004, 0.999, 50_000, 0.5),
        ({"optimizer": "adamw", "momentum_key": 0.9}, 0.004, 0.9, 607, 0.5),
    ],
)
def test_defaults_fit_one_another(given: dict[str, Any], lr: float, m: float, k: int, crop: float) -> None:
    unset = dict.fromkeys(("queue_size", "lr", "momentum_key", "crop", "bn_group"))
    config = resolve({**OPTIONS, "batch_size": 256, **unset, **given}, "", 200_000, 200_000)
    assert (config.lr, config.momentum_key, config.queue_size) == (lr, m, k)
    assert (config.crop, config.bn_group) == (crop, 32)


def test_adamw_rises_first_and_goes_with_the_root_of_the_batch() -> None:
    sgd = resolve(dict(OPTIONS), "", 3200, 3200)
    adamw = replace(sgd, optimizer="adamw")
    rates = [adamw.lr_at(step) for step in range(adamw.total_steps)]
    assert (
        adamw.total_steps == 200 and rates[:20] == sorted(rates[:20]) and rates[20:] == sorted(rates[20:], reverse=True)
    )
    assert rates[0] == pytest.approx(0.03 * (32 / 256) ** 0.5 / 20) and rates[-1] < 1e-5
    assert rates[50] == pytest.approx(sgd.lr_at(50) * (256 / 32) ** 0.5) and sgd.lr_at(0) == 0.03 * 32 / 256


def test_a_dry_run_counts_what_layers_done_by_hand_need() -> None:
    with torch.device("meta"):
        layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(8 * 16, 5))
        pictures = torch.empty(4, 3, 4, 4)
    cost = dry_run(layers, pictures)
    convolution, linear = 2 * 4 * 8 * 16 * 27, 2 * 4 * 128 * 5
    assert cost.forward == convolution + linear
    assert cost.activations == 4 * (4 * 3 * 16 + 4 * 128)  # both layers keep their input
    assert sample_flops(cost, 4, 50) == 4 * cost.forward / 4 + 4 * 50 * 128 * 5
    assert sample_flops(cost, 4, 0) == 3 * cost.forward / 4


def test_expected_time_follows_the_work() -> None:
    said = expected_time(2e9, KEPT, 7200, torch.device("cpu"))
    assert said.startswith("about 2.0 h on cpu (estimated: 2.0 GFLOP a pair, this network at 2 GFLOP/s here now")


@pytest.mark.parametrize("queued", [True, False])
def test_the_passes_are_tried_one_after_the_other(monkeypatch: pytest.MonkeyPatch, queued: bool) -> None:
    monkeypatch.setattr("segloc_train.summary.TRIAL_SECONDS", 3.0)
    calls: list[int] = []
    monkeypatch.setattr("time.perf_counter", lambda: float(len(calls)))  # each picture that is seen takes a second
    monkeypatch.setattr("segloc_train.summary.Encoder.forward", lambda own, view: tick(own, view, calls))
    config = resolve({**OPTIONS, "arch": "tf_efficientnet_lite0", "width": 8}, "", 1000, 936)
    assert pair_seconds(config, 64, queued, torch.device("cpu")) == (2 if queued else 1)


def tick(encoder: Encoder, view: View, calls: list[int]) -> torch.Tensor:
    calls.extend(range(len(view.images)))
    return next(encoder.parameters()) * 1


def test_the_lines_say_what_a_run_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segloc_train.summary.TRIAL_SECONDS", 0.02)
    config = resolve(dict(OPTIONS), "0" * 64, 1000, 936)
    lines = summary(config, 12, 128, torch.device("cpu"), 1)
    assert all(len(line) < 160 for line in lines)
    text = "\n".join(lines)
    for words in (
        "SDANet resnet18, 64 channels: 11.5 M parameters, head 1.0 M",
        "1000 pairs of 128x128 pixels, 12 classes; 72 held out or left over",
        "2 epochs of 29 steps, batch 32: 58 steps, 1856 samples",
        "K 100 keys per class",
        "5.5 GFLOP a pair",
    ):
        assert words in text, text
    assert re.search(r"about \d+(\.\d)? (s|min|h) on cpu", lines[-1])
    for method, words in (("moco", "K 100 keys;"), ("classify", "queues       none;")):
        other = "\n".join(summary(replace(config, method=method), 12, 128, torch.device("cpu"), 1))
        assert words in other and ("5.5 GFLOP" in other) == (method == "moco"), other
    faster = "\n".join(summary(replace(config, crop=0.5, optimizer="adamw"), 12, 128, torch.device("cpu"), 1))
    assert "128x128 pixels seen in crops of 64x64, 12 classes" in faster and "adamw, lr 0.03" in faster
    assert "1.6 GFLOP a pair" in faster


@pytest.mark.parametrize("size", [96, pytest.param(128, marks=pytest.mark.slow)])
def test_flops_grow_with_the_picture_and_memory_with_the_group(size: int) -> None:
    def of(size: int, group: int) -> Cost:
        with torch.device("meta"):
            encoder = Encoder("resnet18", 64, RoiHead(64))
            return dry_run(encoder, View(torch.empty(group, 3, size, size), torch.empty(group, 4)))

    one, double, wider = of(size, 8), of(size, 16), of(2 * size, 8)
    assert double.forward == 2 * one.forward
    assert 3 < wider.forward / one.forward < 4.1  # the head's part does not grow
    assert 1.9 < double.activations / one.activations < 2.01
