"""What is compared: arms and experiments, as data.

An arm is what a detector starts from and how long it is fine-tuned; a unit is one arm at one share of the labels with
one seed. A seed redraws everything: simulated bags, benign scans, which scans are labelled, pairs, start weights and
order. Units of one seed and share see the same data, so arms are compared within seeds.
"""

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SCANS, BENIGN = 4700, 3000  # simulated: 64 % of SCANS are for training, 12 % each are easy, hard and hidden
CHOICE, FINAL, REAL = 1000, 2000, 3000  # PhantomRay's seed is one of these, to choose or to report by, plus the unit's
CPUINFO = Path("/proc/cpuinfo").read_text() if platform.system() == "Linux" else ""
# Without instructions for it, bfloat16 takes many times as long.
PRECISION = "bfloat16" if re.search(r"\b(avx512_bf16|amx_bf16)\b", CPUINFO) else "float32"
# CPU seconds of a sample on one core, only to foretell how long what is missing will take.
PAIR_COST, SCAN_COST, BUILD_COST, FIXED_COST = {
    "bfloat16": (0.0125, 0.068, 0.002, 150.0),
    "float32": (0.044, 0.147, 0.005, 400.0),
}[PRECISION]


@dataclass(frozen=True)
class Profile:
    """Sizes of an experiment.

    Attributes:
        size: pixels of pairs and of scans in fine-tuning.
        encoder: flags of segloc-train and segloc-eval for the architecture.
        train: flags of segloc-train that depend on the machine.
        pairs, epochs: pairs built, and passes over them.
        detector, samples: detector, and scans seen in fine-tuning.
        composites: composites seen by a detector that learns on them, in the time that pretraining takes.
        scans, benign: simulated scans.
    """

    size: int
    encoder: tuple[str, ...]
    train: tuple[str, ...]
    pairs: int
    epochs: int
    detector: str
    samples: int
    composites: int
    scans: int = SCANS
    benign: int = BENIGN


CPU = Profile(
    128,
    ("--arch", "resnet18", "--width", "64"),
    ("--batch-size", "64", "--precision", PRECISION),
    pairs=20_000,
    epochs=6,
    detector="mask-rcnn",
    samples=8_000,
    composites=24_000,
)
GPU = Profile(
    256,
    ("--arch", "resnet50", "--width", "256"),
    ("--batch-size", "256"),
    pairs=100_000,
    epochs=10,
    detector="cascade",
    samples=40_000,
    composites=200_000,
)

Start = Literal["random", "imagenet", "pretrained", "composites", "pretrained, then composites", "backbone"]


@dataclass(frozen=True)
class Arm:
    """A start and a length.

    Attributes:
        name: in records and tables.
        start: where the detector's weights come from: nowhere, ImageNet, pretraining on pairs, or detection learnt on
            the composites themselves (both pictures of every pair), for as long as pretraining takes; or on both, one
            after the other; or from the backbone alone of a detector that learnt on composites, under new heads.
        synth, train: flags beside those of the profile; the last of a kind counts.
        length: of the fine-tuning, times the profile's; 0 scores the start as it is.
        labels: share of the labels that fine-tuning has, where it differs from that of the unit.
        pairs, epochs: instead of the experiment's or the profile's.
        objects, backgrounds: what pairs are made of, where scans are real; `simulated` ones are PhantomRay's.
        seeds: instead of the experiment's; one for what nothing is claimed about.
    """

    name: str
    start: Start = "pretrained"
    synth: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    length: float = 1
    labels: str | None = None
    pairs: int | None = None
    epochs: int | None = None
    objects: Literal["own", "simulated"] = "own"
    backgrounds: Literal["own", "simulated"] = "own"
    seeds: int | None = None

    @property
    def on_pairs(self) -> bool:
        """Does it learn on pairs before it is fine-tuned?"""
        return self.start not in ("random", "imagenet")


@dataclass(frozen=True)
class Experiment:
    """Arms at shares of the labels, over seeds.

    Attributes:
        shares: of the labels, as `segloc-eval --labels` takes them.
        on: the splits that detectors are scored on, and with them the seeds: `val` chooses, `test` reports.
        base: the arm that differences are taken to.
        probe: pretrains only, and looks at what nearest neighbours make of the features; no detector.
        epochs: passes over the pairs, instead of the profile's.
        look_at_pairs: tells too what was learnt on the pairs, and how well a classifier finds what was pasted.
        real: instead of PhantomRay, segments and benign scans of SIXray (unless the arm says otherwise), fine-tuned on
            boxes of four other scanners; pretraining has other labels than fine-tuning. The scans lie below
            SEGLOC_SCANS.
    """

    name: str
    question: str
    arms: tuple[Arm, ...]
    shares: tuple[str, ...]
    seeds: int
    on: Literal["val", "test"] = "test"
    base: str = "random"
    probe: bool = False
    epochs: int | None = None
    look_at_pairs: bool = False
    real: bool = False

    def passes(self, arm: Arm, profile: Profile) -> int:
        """Passes over the pairs in pretraining."""
        return arm.epochs or self.epochs or profile.epochs

    @property
    def data_seed(self) -> int:
        """What a unit's seed is added to."""
        return REAL if self.real else CHOICE if self.on == "val" else FINAL
