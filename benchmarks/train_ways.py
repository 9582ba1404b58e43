"""The ways to do a training step that train_step.py measures: rungs of its ladder, the trainer, the bare network."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from queue_cost import CLASSES, Moco
from torch import Tensor, nn

from segloc_train.cli import command
from segloc_train.config import Config, resolve
from segloc_train.data.augment import plain
from segloc_train.data.data import Batch, View
from segloc_train.dist import World
from segloc_train.methods.common.contrast import info_nce
from segloc_train.methods.common.step import Step
from segloc_train.model.backbone import LEVELS, SDANet
from segloc_train.model.encoder import Encoder, momentum_update
from segloc_train.run.trainer import Trainer, build

Run = Callable[[Batch], object]


@dataclass(frozen=True)
class Way:
    """How a step is done, besides what every rung does."""

    channels_last: bool = False
    bfloat16: bool = False
    foreach: bool = False
    store: bool = False
    unread: bool = False


def ladder(device: torch.device) -> dict[str, Way]:
    """The rungs below the trainer."""
    way, found = Way(), {"plain": Way()}
    for name, change in (
        ("channels_last", {"channels_last": True}),
        ("bfloat16", {"bfloat16": True}),
        ("foreach", {"foreach": True}),
        ("key store", {"store": True}),
        ("nothing read", {"unread": True}),
    ):
        if name != "bfloat16" or device.type == "cuda":
            found[name] = way = replace(way, **change)
    return found


class Rung:
    """A training step that is done in one of these ways."""

    def __init__(self, config: Config, device: torch.device, way: Way) -> None:
        self.config, self.device, self.way, self.number = config, device, way, 0
        self.method: Any = build(config, CLASSES, device)
        if not way.channels_last:
            self.method.to(memory_format=torch.contiguous_format)
        weights = self.method.query.parameters()
        self.optimizer = torch.optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=1e-4, foreach=way.foreach)
        self.queue = Moco(config.queue_size, device)

    def embed(self, encoder: Encoder, view: View) -> Tensor:
        layout = torch.channels_last if self.way.channels_last else torch.contiguous_format
        images = view.images.contiguous(memory_format=layout)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.way.bfloat16):
            return encoder.head(encoder.backbone(images), view)

    def __call__(self, batch: Batch) -> None:
        config, method = self.config, self.method
        views = (view.map(lambda x: x.to(self.device)) for view in batch[:2])
        moved = Batch(*views, *batch[2:])
        step = Step(moved, batch.labels, config.bn_group, config.augment, 0, self.number, World())
        self.optimizer.zero_grad(set_to_none=True)
        keys = step.keys(lambda view: self.embed(method.key, view))
        if self.way.store:
            method.store.enqueue(keys, batch.labels)
        total = torch.zeros((), device=self.device)
        share = config.bn_group / config.batch_size
        for group in step.groups(method.query):
            queries = self.embed(method.query, group.view)
            if self.way.store:
                negatives = method.store.keys, method.store.visible, config.temperature, group.labels
                loss = info_nce(queries, keys[group.rows], *negatives)[0].mean(0).sum() * share
            else:
                loss = self.queue.loss(queries, keys[group.rows], group.labels) * share
            loss.backward()
            total += loss.detach()
        if not self.way.store:
            self.queue.enqueue(keys, batch.labels)
        self.optimizer.step()
        self.follow(config.momentum_per_step)
        if not self.way.unread:
            total.item()
        self.number += 1

    @torch.no_grad()
    def follow(self, m: float) -> None:
        """The momentum update; without foreach as MoCo's published one."""
        if self.way.foreach:
            momentum_update(self.method.key, self.method.query, m)
        else:
            for key, query in zip(self.method.key.parameters(), self.method.query.parameters(), strict=True):
                key.data = key.data * m + query.data * (1.0 - m)


class Level(nn.Module):
    """In the place of a level's attention: the pyramid's own map."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def forward(self, levels: list[Tensor]) -> Tensor:
        return levels[self.level]


class Bare:
    """Trunk and pyramid alone: forward and backward of the queries, forward of the keys, in groups of `group`."""

    def __init__(self, config: Config, device: torch.device, group: int) -> None:
        query = SDANet(config.arch, config.width)
        query.attention = nn.ModuleList(Level(i) for i in range(LEVELS))
        self.query = query.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.key = copy.deepcopy(self.query)
        if config.compile:
            self.query.compile()
            self.key.compile()
        self.device, self.group = device, group
        self.pictures: dict[int, list[list[Tensor]]] = {}

    def __call__(self, batch: Batch) -> None:
        queries, keys = self.prepared(batch)
        self.query.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            with torch.no_grad():
                for images in keys:
                    self.key(images)
            for images in queries:
                torch.stack([x.float().mean() for x in self.query(images)]).sum().backward()

    def prepared(self, batch: Batch) -> list[list[Tensor]]:
        """Both sides, normalised on the device, in groups; made once, when warming up."""
        if id(batch) not in self.pictures:
            sides = [plain(view.to(self.device)).images for view in batch[:2]]
            layout = torch.channels_last
            self.pictures[id(batch)] = [
                [part.contiguous(memory_format=layout) for part in x.split(self.group)] for x in sides
            ]
        return self.pictures[id(batch)]


class Prefetched:
    """A step whose next batch is copied on a stream of its own meanwhile."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.device, self.stream = run, device, torch.cuda.Stream()
        self.next: Batch | None = None

    def __call__(self, batch: Batch) -> None:
        current = self.next or batch.to(self.device)
        torch.cuda.current_stream().wait_stream(self.stream)
        for view in current[:2]:
            view.map(lambda x: x.record_stream(torch.cuda.current_stream()) or x)
        with torch.cuda.stream(self.stream):
            self.next = batch.to(self.device)
        self.run(current)


def trainer(config: Config, device: torch.device, fused: bool | None = None) -> Trainer:
    """The trainer; `fused`: with torch's fused optimiser."""
    found = Trainer(config, CLASSES, World(), device)
    if fused:
        weights = found.optimizer.param_groups[0]["params"]
        found.optimizer = torch.optim.SGD(weights, lr=0.0, momentum=0.9, weight_decay=1e-4, fused=True)
    return found


def advance(found: Trainer) -> Run:
    """Steps of a trainer; what it would keep for its next record is dropped."""

    def run(batch: Batch) -> None:
        found.advance(batch, False)
        found.pending, found.sound, found.places = [], [], []

    return run


def settings(*flags: object) -> Config:
    """The config of a run with these flags, on a million pairs."""
    options = command.make_context("segloc-train", [str(x) for x in flags]).params
    known = {field.name for field in fields(Config)} & set(options)
    return resolve({x: options[x] for x in known} | {"width": int(options["width"]), "shards": []}, "", 10**6, 10**6)


def random_batch(count: int, size: int, pin: bool) -> Batch:
    """Noise with boxes of an eighth to three eighths of the side."""
    views = []
    for _ in range(2):
        side = torch.randint(size // 8, size * 3 // 8, (count, 2))
        corner = (torch.rand(count, 2) * (size - side)).floor()
        views.append(
            View(
                torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8), torch.cat([corner, corner + side], 1)
            )
        )
    if pin:
        views = [view.map(Tensor.pin_memory) for view in views]
    return Batch(*views, torch.randint(0, CLASSES, (count,)), torch.arange(count))


def runs_of(config: Config, device: torch.device, compile_too: bool) -> dict[str, Run]:
    """Everything that is measured, by name."""
    found: dict[str, Run] = {name: Rung(config, device, way) for name, way in ladder(device).items()}
    found["trainer"] = advance(trainer(config, device))
    found["bare, in groups"] = Bare(config, device, config.bn_group)
    found["bare, one batch"] = Bare(config, device, config.batch_size)
    found["+ fused SGD"] = advance(trainer(config, device, fused=True))
    if device.type == "cuda":
        found["+ prefetch"] = Prefetched(advance(trainer(config, device)), device)
    if compile_too:
        compiled = replace(config, compile=True)
        found["+ compile"] = advance(trainer(compiled, device))
        found["bare, compiled"] = Bare(compiled, device, config.bn_group)
    return found
