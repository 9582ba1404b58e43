"""What a run will cost, before it starts."""

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from segloc_train.config import Config
from segloc_train.data.augment import cropped_size
from segloc_train.data.data import View
from segloc_train.methods.common.method import Contrast
from segloc_train.model.backbone import LEVELS
from segloc_train.model.encoder import Encoder
from segloc_train.model.head import DIM, RoiHead
from segloc_train.run.runlog import duration

# Share of the rate of the network's passes alone that a whole run keeps up, held-out scoring and data included;
# measured on a CPU (docs/BENCHMARKS.md).
KEPT = 0.85
TRIED = 8  # pictures of a trial pass
TRIAL_SECONDS = 0.5


@dataclass(frozen=True)
class Cost:
    """Of one group of samples: FLOPs of a forward pass, and the bytes kept for a backward one."""

    forward: int
    activations: int


def summary(config: Config, classes: int, size: int, device: torch.device, ranks: int) -> list[str]:
    """Lines for people: parameters, steps, m, K, memory, time. `size` is the pictures' side in pixels."""
    with torch.device("meta"):
        encoder = Encoder(config.arch, config.width, RoiHead(config.width))
        seen = cropped_size(size, config.crop)
        group = View(torch.empty(config.bn_group, 3, seen, seen), torch.empty(config.bn_group, 4))
    cropped = f" seen in crops of {seen}x{seen}" if seen != size else ""
    backbone = sum(x.numel() for x in encoder.backbone.parameters())
    head = sum(x.numel() for x in encoder.head.parameters())
    training = config.samples - config.steps_per_epoch * config.batch_size
    kind = import_module(f"segloc_train.methods.{config.method}").Method
    queued, by_class = issubclass(kind, Contrast), getattr(kind, "by_class", False)
    slots = config.queue_size * (min(2, 1 + 1 / max(classes - 1, 1)) if by_class else 1) if queued else 0
    queues = f"K {config.queue_size} keys{' per class' if by_class else ''}" if queued else "none"
    cost = dry_run(encoder, group)
    # query, gradients, the optimiser's one or two moments, key copy
    copies = 3 + (config.optimizer == "adamw") + queued
    memory = 4 * copies * (backbone + head) + 4 * LEVELS * DIM * slots + cost.activations
    flops = sample_flops(cost, config.bn_group, slots)
    share = config.total_steps * config.batch_size // ranks
    return [
        f"method       {config.method}, from {config.init} weights",
        f"network      SDANet {config.arch}, {config.width} channels: {backbone / 1e6:.1f} M parameters, "
        f"head {head / 1e6:.1f} M",
        f"data         {config.samples} pairs of {size}x{size} pixels{cropped}, {classes} classes; "
        f"{training} held out or left over",
        f"schedule     {config.epochs} epochs of {config.steps_per_epoch} steps, batch {config.batch_size}: "
        f"{config.total_steps} steps, {config.total_steps * config.batch_size} samples",
        f"learning     {config.optimizer}, lr {config.lr:g} for a batch of 256, {config.scaled_lr:.3g} for this one, "
        f"{'rising at first, then ' if config.optimizer == 'adamw' else ''}along a cosine to 0",
        f"momentum     m {config.momentum_key:.6g} per 256 samples, {config.momentum_per_step:.6g} per step",
        f"queues       {queues}; batch statistics in groups of {config.bn_group}",
        f"memory       about {memory / 1e9:.1f} GB for float32 training",
        f"time         {expected_time(flops, pair_seconds(config, seen, queued, device), share, device)}",
    ]


def dry_run(encoder: nn.Module, *inputs: Any) -> Cost:
    """Cost of encoder(*inputs), a tensor; all on the meta device, so nothing is computed."""
    weights = {x.untyped_storage()._cdata for x in encoder.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that ids stay unique

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
            alive.append(x)
        return x

    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        encoder(*inputs)
    return Cost(counter.get_total_flops(), sum(kept.values()))


def sample_flops(cost: Cost, group: int, slots: float) -> float:
    """FLOPs of training on one pair: the query there and back, the key there, similarities with `slots` keys a level.

    A pass back is counted as two there: torch's own count of it takes a depthwise convolution for a full one. The
    similarities are a product in the forward and one in the backward pass; keys take no gradient. Without slots there
    is no key.
    """
    return (4 if slots else 3) * cost.forward / group + 2 * 2 * slots * DIM * LEVELS


def computed_in(device: torch.device, precision: str) -> str:
    """What a run of that `precision` computes in on the device: float32 or bfloat16."""
    return ("bfloat16" if device.type == "cuda" else "float32") if precision == "auto" else precision


def pair_seconds(config: Config, seen: int, queued: bool, device: torch.device) -> float:
    """Seconds that the network's passes on a pair take: tried for about half a second on pictures of `seen` pixels."""
    encoder = Encoder(config.arch, config.width, RoiHead(config.width))
    encoder.low_precision = computed_in(device, config.precision) == "bfloat16"
    encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    boxes = torch.tensor([[0.0, 0.0, seen / 2, seen / 2]], device=device)
    view = View(torch.rand(TRIED, 3, seen, seen, device=device), boxes.expand(TRIED, 4))

    def passes() -> float:
        start = time.perf_counter()
        if queued:
            with torch.no_grad():
                encoder(view)
        encoder(view).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    passes()  # loads the libraries
    spent, count = 0.0, 0
    while spent < TRIAL_SECONDS:
        spent, count = spent + passes(), count + 1
    return spent / count / TRIED


def expected_time(flops: float, seconds: float, samples: int, device: torch.device) -> str:
    """Words about `samples` samples of `flops` each, of which the network's passes take so many `seconds`."""
    return (
        f"about {duration(seconds * samples / KEPT)} on {device.type} (estimated: {flops / 1e9:.1f} GFLOP a pair, this "
        f"network at {flops / seconds / 1e9:.0f} GFLOP/s here now, {1 - KEPT:.0%} of the time for all else)"
    )
