"""Units as the commands that anyone would type: simulate, list the labels, build, pretrain, probe, fine-tune and score.

Each command writes one folder below that of its seed, so that units share what they have in common.
"""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.transfer.arms import Arm, Experiment, Profile
from benchmarks.transfer.commands import NOTHING, Runner, plus

from segloc_eval.config import BACKBONE
from segloc_eval.data.splits import label_slug
from segloc_eval.numbers.score import MEAN, POOLED

LR = "5e-4"  # of detectors: the quick recipe's when these experiments began
SCANS = Path(os.environ.get("SEGLOC_SCANS", "../shared/data")).resolve()  # real scans, where there are any


@dataclass(frozen=True)
class Unit:
    """One arm at one share of the labels with one seed."""

    experiment: Experiment
    arm: Arm
    share: str
    seed: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What a record is found by."""
        return self.experiment.name, self.arm.name, self.share, self.seed

    def __str__(self) -> str:
        return f"{self.experiment.name}: {self.arm.name}, {self.share} of the labels, seed {self.seed}"


class Stages:
    """Has `runner` do the commands of units, in the sizes of `profile`, and adds up what they took."""

    def __init__(self, runner: Runner, profile: Profile, device: str) -> None:
        self.runner, self.profile, self.device = runner, profile, device

    def unit(self, unit: Unit) -> dict[str, Any]:
        """Do what is left of a unit; returns its part of the record: commands, cost, pretraining, scores.

        Raises:
            Stopped: a command failed, or the deadline came.
        """
        done = _Unit(self, unit)
        scores = done.finish()
        return {"scores": scores, "pretraining": done.pretraining, "cost": done.cost, "commands": done.commands}


class _Unit:
    def __init__(self, stages: Stages, unit: Unit) -> None:
        self.stages, self.profile, self.arm, self.own = stages, stages.profile, unit.arm, unit
        self.real = unit.experiment.real
        self.base = stages.runner.work / f"{'real' if self.real else 'seed'}-{unit.experiment.data_seed + unit.seed}"
        self.cost: dict[str, dict[str, Any]] = {}
        self.commands: list[str] = []
        self.pretraining: dict[str, Any] = {}

    def finish(self) -> dict[str, Any]:
        """Scores by kind and split; none where the experiment only probes."""
        start = {
            "random": lambda: "random",
            "imagenet": lambda: "imagenet",
            "pretrained": self._pretrained,
            "composites": lambda: self._learnt_on_composites("random"),
            "pretrained, then composites": lambda: self._learnt_on_composites(self._pretrained()),
            "backbone": lambda: self._backbone(self._learnt_on_composites("random")),
        }[self.arm.start]()
        if not self.arm.start.endswith("composites"):
            self.pretraining["scan_knn"] = self._neighbours(start)
        if self.own.experiment.look_at_pairs and self.arm.on_pairs:
            self.pretraining["paste_auc"] = self._paste_auc()
        return {} if self.own.experiment.probe else self._scored(start)

    def _scans(self) -> Path:
        seed = self.own.experiment.data_seed + self.own.seed
        sizes = ["--images", str(self.profile.scans), "--backgrounds", str(self.profile.benign)]
        return self._do("simulate", "segloc-synth", ["phantom", *sizes, "--seed", str(seed)], "scans")

    def _data(self) -> Path:
        """What detectors are fine-tuned and scored on."""
        return SCANS / "xray6dom_boxes" if self.real else self._scans() / "pidray"

    def _labels(self, share: str) -> Path:
        flags = ["labels", str(self._data()), "--labels", share, "--seed", str(self.own.seed)]
        flags += ["--on", "val"] if self.own.experiment.on == "val" else []
        folder = self._do("labels", "segloc-eval", flags, f"labels-{label_slug(share)}")
        return folder / f"labels-{label_slug(share)}.txt"

    def _pairs(self) -> Path:
        count = self.arm.pairs or self.profile.pairs
        simulated = not self.real or self.arm.backgrounds == "simulated"
        backgrounds = self._scans() / "sixray" if simulated else SCANS / "sixray_negatives"
        if self.real:
            scans = self._scans() / "pidray" if self.arm.objects == "simulated" else SCANS / "sixray_masks"
            objects = ["--objects", str(scans)]
        else:
            objects = ["--objects", str(self._data()), "--images", str(self._labels(self.own.share))]
        flags = [
            *("build", *objects, "--backgrounds", str(backgrounds), "--n", str(count)),
            *("--size", str(self.profile.size), "--seed", str(self.own.seed), *self.arm.synth),
        ]
        return self._do("synthesis", "segloc-synth", flags, f"pairs-{label_slug(self.own.share)}")

    def _pretrained(self) -> str:
        flags = [
            *("--shards", str(self._pairs()), *self.profile.encoder, *self.profile.train),
            *("--device", self.stages.device, "--seed", str(self.own.seed)),
            *("--epochs", str(self.own.experiment.passes(self.arm, self.profile)), *self.arm.train),
        ]
        method = next((b for a, b in itertools.pairwise(flags) if a == "--method"), "segloc")
        run = self._do("pretraining", "segloc-train", flags, f"run-{label_slug(self.own.share)}-{method}")
        records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for name in ("knn_accuracy", "held_out_accuracy"):  # neither can be told of pairs from very few scans
            self.pretraining[name] = [round(record[name], 4) for record in records if name in record]
        return str(run)

    def _neighbours(self, start: str) -> dict[str, float]:
        """k-NN accuracy on objects of each test split, also to choose by: seeds that choose report nothing."""
        flags = [
            *("-m", "benchmarks.transfer.neighbours", "--ckpt", start, *self.profile.encoder),
            *("--data", str(self._data()), "--labels", self.own.share, "--seed", str(self.own.seed)),
            *("--size", str(self.profile.size), "--device", self.stages.device),
            *(("--draws", "10") if self.real else ()),  # so few scans that chance decides which are labelled
        ]
        folder = self._do("neighbours", "python", flags, "neighbours")
        return {split: round(value, 4) for split, value in json.loads((folder / "neighbours.json").read_text()).items()}

    def _paste_auc(self) -> float:
        """How well a classifier tells which of two boxes of a composite holds the object: area under the ROC curve."""
        told = self._do("probe", "segloc-synth", ["probe", str(self._pairs()), "--json"], "probe", prints=True)
        return round(json.loads(told.read_text())["which region"]["all"]["auc"], 4)

    def _learnt_on_composites(self, start: str) -> str:
        """A detector that saw nothing but composites; no labelled scan but through its segments."""
        passes = self.own.experiment.passes(self.arm, self.profile)
        samples = self.profile.composites * passes // self.profile.epochs  # in the time of so many passes over pairs
        flags = [
            *("pretrain", str(self._pairs()), "--ckpt", start, "--seed", str(self.own.seed)),
            *self._detector(start, samples),
        ]
        return str(self._do("fine-tuning", "segloc-eval", flags, f"composites-{label_slug(self.own.share)}"))

    def _backbone(self, detector: str) -> str:
        flags = ["-m", "benchmarks.transfer.backbone", "--ckpt", detector]
        return str(self._do("backbone", "python", flags, f"backbone-{label_slug(self.own.share)}") / BACKBONE)

    def _scored(self, start: str) -> dict[str, Any]:
        data = self._data()
        share = self.arm.labels or self.own.share
        on = ["--on", self.own.experiment.on]
        if self.arm.length:
            samples = round(self.profile.samples * self.arm.length)
            found = self._fine_tuned(start, data, share, samples, f"eval-{label_slug(share)}", on)
        else:
            seed = ["--seed", str(self.own.seed)]  # which decides the scans of val
            flags = ["--eval-only", "--ckpt", start, "--data", str(data), *seed, "--device", self.stages.device, *on]
            found = self._do("scoring", "segloc-eval", flags, "eval-only")
        metrics = json.loads((found / "metrics.json").read_text())
        (entry,) = metrics["units"]
        return {
            kind: {split: _few(numbers["overall"]) for split, numbers in splits.items() if split not in (MEAN, POOLED)}
            for kind, splits in entry["scores"].items()
        }

    def _fine_tuned(self, start: str, data: Path, share: str, samples: int, name: str, more: Sequence[str]) -> Path:
        flags = [
            *("--ckpt", start, "--data", str(data), "--labels", share, "--seeds", "1", "--seed", str(self.own.seed)),
            *(*self._detector(start, samples), *more),
        ]
        return self._do("fine-tuning", "segloc-eval", flags, name)

    def _detector(self, start: str, samples: int) -> list[str]:
        """Flags of how a detector learns; a run or a detector tells its architecture itself."""
        tells = start not in ("random", "imagenet") and not start.endswith(BACKBONE)
        return [
            *("--detector", self.profile.detector, "--samples", str(samples), "--size", str(self.profile.size)),
            *("--lr", LR),
            *(() if tells else self.profile.encoder),
            *("--device", self.stages.device),
        ]

    def _do(self, stage: str, program: str, flags: Sequence[str], name: str, prints: bool = False) -> Path:
        """The folder that `program flags --out FOLDER` writes, or the file of what `program flags` prints.

        Its cost is added to that of the stage.
        """
        done = self.stages.runner.run(program, flags, self.base, name, prints)
        total = self.cost.setdefault(stage, NOTHING.copy())
        text = " ".join(done.command).replace(str(self.stages.runner.work), "WORK").replace(str(SCANS), "SCANS")
        if text not in self.commands:
            self.commands.append(text)
            for what in ("cpu_seconds", "seconds"):
                total[what] = plus(total[what], done.cost[what])
            total["peak_bytes"] = max(total["peak_bytes"], done.cost["peak_bytes"])
        return done.path


def _few(numbers: dict[str, float | None]) -> dict[str, float | None]:
    names = ("AP", "AP50", "AP75", "AR@1", "AR@10", "AR@100")
    return {name: None if (value := numbers.get(name)) is None else round(value, 5) for name in names}
