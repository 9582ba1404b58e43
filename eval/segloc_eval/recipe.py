"""How every arm is fine-tuned: detectors, recipes, and schedules in scans seen. Numbers only, no torch."""

import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal

import click

ResultKind = Literal["bbox", "segm", "semantic"]  # what is found: boxes, masks, a label map
DetectorName = Literal["cascade-mask-rcnn", "cascade-rcnn", "mask-rcnn", "faster-rcnn", "semantic-fpn"]
DETECTORS: tuple[DetectorName, ...] = ("cascade-mask-rcnn", "cascade-rcnn", "mask-rcnn", "faster-rcnn", "semantic-fpn")
WITH_MASKS: tuple[DetectorName, ...] = ("cascade-mask-rcnn", "mask-rcnn", "semantic-fpn")  # what they learn from
FAMILIES: dict[str, tuple[DetectorName, DetectorName | None]] = {  # the flag: detector for masks, for boxes only
    "cascade": ("cascade-mask-rcnn", "cascade-rcnn"),
    "mask-rcnn": ("mask-rcnn", "faster-rcnn"),
    "faster-rcnn": ("faster-rcnn", "faster-rcnn"),
    "semantic": ("semantic-fpn", None),
}
LIMITS = {  # least and most of a recipe's whole numbers
    "size": (64, 2048),
    "batch_size": (2, 1024),
    "width": (8, 2048),
    "proposals": (2, 10_000),
    "detections": (1, 1000),
    "roi_samples": (1, 8),
}
DROP = 0.1  # what is left of the learning rate after each drop


@dataclass(frozen=True)
class Recipe:
    """One way to fine-tune a detector, the same for all arms.

    Attributes:
        name: `quick` or `paper`; whatever is changed in it keeps the name.
        arch, width: of SDANet.
        size: pixels of a scan's longer side.
        batch_size: scans a step, over all ranks.
        epochs, samples: length, in passes over the training scans or in scans seen; `samples` wins.
        least: scans seen at least, where few labels make passes short; not where epochs or samples are asked for.
        optimiser: `adamw` or `sgd` (momentum 0.9).
        lr: the highest learning rate, for this batch size.
        weight_decay, clip: the latter is the greatest norm of the gradient.
        warm_up, warm_up_from: share of the samples with a rising learning rate, and the share of lr it rises from.
        drops: shares of the samples after each of which lr falls to a tenth; without any it follows a cosine to zero.
        slim: heads of a CPU's size (two mask convolutions, 64 regions a scan) instead of the published ones.
        proposals: regions a scan that the first stage hands on in training; half as many in testing.
        detections, threshold: of a scan at most so many are kept, of at least that score.
        roi_samples: points a side of each of a region's bins that its features are the mean of.
        agnostic: whether one stage's head places boxes alike for all classes, as a cascade's do.
    """

    name: str
    arch: str
    width: int
    size: int
    batch_size: int
    epochs: int
    samples: int | None
    least: int
    optimiser: Literal["adamw", "sgd"]
    lr: float
    weight_decay: float
    clip: float
    warm_up: float
    warm_up_from: float
    drops: tuple[float, ...]
    slim: bool
    proposals: int
    detections: int
    threshold: float
    roi_samples: int = 2
    agnostic: bool = False

    def steps(self, scans: int) -> int:
        """Optimiser steps for a training set of `scans` scans: at least one, every batch full."""
        seen = self.samples if self.samples is not None else max(scans * self.epochs, self.least)
        return max(1, seen // self.batch_size)

    def total_samples(self, scans: int) -> int:
        """Scans seen in all, each as often as it was shown."""
        return self.steps(scans) * self.batch_size

    def lr_at(self, samples_seen: int, scans: int) -> float:
        """Learning rate of the step that follows after `samples_seen` scans."""
        done = samples_seen / self.total_samples(scans)
        rising = min(1.0, self.warm_up_from + (1 - self.warm_up_from) * done / self.warm_up) if self.warm_up else 1.0
        if self.drops:
            return self.lr * rising * DROP ** sum(done >= drop for drop in self.drops)
        return self.lr * rising * (1 + math.cos(math.pi * done)) / 2

    def changed(self, batch_size: int | None = None, lr: float | None = None, **others: Any) -> "Recipe":
        """This recipe with the values given, None standing for "as it is".

        Another batch size scales the learning rate in proportion (arXiv 1706.02677), unless `lr` is given too.
        """
        batch_size = batch_size or self.batch_size
        others = {name: value for name, value in others.items() if value is not None}
        if "epochs" in others:
            others["least"] = 0
        scaled = self.lr * batch_size / self.batch_size if lr is None else lr
        return replace(self, batch_size=batch_size, lr=scaled, **others)

    def as_dict(self) -> dict[str, Any]:
        """JSON types only; without fields at a default of theirs, as those are that came later."""
        defaults = {field.name: field.default for field in fields(self)}
        value = {name: item for name, item in asdict(self).items() if item != defaults[name]}
        return {**value, "drops": list(self.drops)}

    @classmethod
    def from_dict(cls, value: Any, source: str) -> "Recipe":
        """What as_dict gave, read from the file `source`; click.ClickException when it is anything else."""
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(value, dict) or not needed <= set(value) <= {field.name for field in fields(cls)}:
            raise click.ClickException(f"{source}: holds no recipe of this version of segloc-eval")
        kinds = {name: type(kind) for name, kind in {**asdict(QUICK), "drops": []}.items()}
        for name, item in value.items():
            number = type(item) is int and kinds[name] is float
            if not (type(item) is kinds[name] or number or (name == "samples" and type(item) is int)):
                raise click.ClickException(f"{source}: the recipe's {name} {str(item)[:40]!r} cannot be used")
            least, most = LIMITS.get(name, (0, math.inf))
            if type(item) in (int, float) and (not least <= item <= most or item == math.inf):
                raise click.ClickException(f"{source}: the recipe's {name} {str(item)[:40]} cannot be used")
        drops = value["drops"]
        if not all(type(drop) is float for drop in drops) or value["optimiser"] not in ("adamw", "sgd"):
            raise click.ClickException(f"{source}: the recipe's drops or optimiser cannot be used")
        return cls(**{**value, "drops": tuple(drops)})


# For CPUs. AdamW: in a few hundred steps from random weights it reached 1.4 times the box AP of SGD. Best detections
# kept are 50, so AR@100 is that of the best 50: scans hold a handful of objects, and 100 would double the time of
# testing where a detector is unsure. At 128 pixels a region's bins are smaller than a cell of its level, so that one
# point a bin says what four say, and a step takes a fifth less. With few labels, boxes of all classes teach placing
# each: box AP 19.0 on PhantomRay's validation scans, 16.5 with a regression for each class (one seed).
QUICK = Recipe(
    name="quick",
    arch="tf_efficientnet_lite0",
    width=64,
    size=128,
    batch_size=8,
    epochs=12,
    samples=None,
    least=1200,
    optimiser="adamw",
    lr=1e-3,
    weight_decay=0.05,
    clip=35.0,
    warm_up=0.05,
    warm_up_from=0.05,
    drops=(),
    slim=True,
    proposals=200,
    detections=50,
    threshold=0.01,
    roi_samples=1,
    agnostic=True,
)

# PIDray's (arXiv 2108.07020, its config): R-101, pictures of 500 pixels, 12 epochs, steps at 8 and 11, SGD, clip 35.
# The config says 2 scans a GPU and lr 0.02, which is mmdet's for 8 GPUs, so a batch of 16. Its warm-up of 500 steps is
# 2.26 % of the 22,093 steps of 29,457 scans; as a share it also fits a hundredth of the labels. Unlike there, every
# weight is trained, and batch norm uses batch statistics: frozen stages and norms favour supervised weights.
PAPER = Recipe(
    name="paper",
    arch="resnet101",
    width=256,
    size=500,
    batch_size=16,
    epochs=12,
    samples=None,
    least=0,
    optimiser="sgd",
    lr=0.02,
    weight_decay=1e-4,
    clip=35.0,
    warm_up=500 / 22_093,
    warm_up_from=1 / 3,
    drops=(8 / 12, 11 / 12),
    slim=False,
    proposals=2000,
    detections=100,
    threshold=0.05,
)
RECIPES = {recipe.name: recipe for recipe in (QUICK, PAPER)}


def choose_detector(family: str, masks: bool) -> DetectorName:
    """The detector of a FAMILIES key for data with or without `masks`.

    click.ClickException for semantic segmentation of data that have boxes only.
    """
    found = FAMILIES[family][0 if masks else 1]
    if found is None:
        raise click.ClickException(f"--detector {family} needs masks, and these data have boxes only; name another")
    return found


def kinds(detector: DetectorName) -> tuple[ResultKind, ...]:
    """What a detector finds, and is scored on."""
    if detector == "semantic-fpn":
        return ("semantic",)
    return ("bbox", "segm") if detector in WITH_MASKS else ("bbox",)
