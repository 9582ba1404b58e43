"""What a run will cost, before it starts."""

import torch
from torch import Tensor

from segloc_train.backbone import LEVELS
from segloc_train.config import Config
from segloc_train.encoder import Encoder
from segloc_train.head import DIM


def summary(config: Config, classes: int, size: int) -> list[str]:
    """Lines for people: parameters, steps, m, K, memory. `size` is the pictures' side in pixels."""
    with torch.device("meta"):
        encoder = Encoder(config.arch, config.width)
    backbone = sum(x.numel() for x in encoder.backbone.parameters())
    head = sum(x.numel() for x in encoder.head.parameters())
    training = config.samples - config.steps_per_epoch * config.batch_size
    store = 4 * LEVELS * DIM * (config.queue_size * min(2, 1 + 1 / max(classes - 1, 1)))
    # query, key copy, gradients, the optimiser's momentum
    memory = 4 * 4 * (backbone + head) + store + activation_bytes(encoder, config.bn_group, size)
    return [
        f"network      SDANet {config.arch}, {config.width} channels: {backbone / 1e6:.1f} M parameters, "
        f"head {head / 1e6:.1f} M",
        f"data         {config.samples} pairs of {size}x{size} pixels, {classes} classes; "
        f"{training} held out or left over",
        f"schedule     {config.epochs} epochs of {config.steps_per_epoch} steps, batch {config.batch_size}: "
        f"{config.total_steps} steps, {config.total_steps * config.batch_size} samples",
        f"learning     lr {config.lr:g} per 256 samples, {config.lr_at(0):g} at the first step, cosine to 0",
        f"momentum     m {config.momentum_key:.6g} per 256 samples, {config.momentum_per_step:.6g} per step",
        f"queues       K {config.queue_size} per class; batch statistics in groups of {config.bn_group}",
        f"memory       about {memory / 1e9:.1f} GB for float32 training",
    ]


def activation_bytes(encoder: Encoder, group: int, size: int) -> int:
    """Bytes that one group's graph keeps for its backward pass, counted by a dry run; `encoder` on meta."""
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that ids stay unique

    def note(x: Tensor) -> Tensor:
        if not isinstance(x, torch.nn.Parameter):
            storage = x.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
            alive.append(x)
        return x

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        encoder(torch.empty(group, 3, size, size), torch.empty(group, 4))
    return sum(kept.values())
