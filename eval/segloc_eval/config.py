"""The resolved configuration of one evaluation: everything that decides its numbers."""

import hashlib
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import click

from segloc_eval.recipe import LIMITS, Recipe
from segloc_synth.files import read_json

RANDOM, IMAGENET = "random", "imagenet"
TRUTH = "truth"  # the folder beside the arms' that holds what they are scored against
MIX = "mix"  # the folder beside the arms' that holds the composites of --mix
BENIGN = "benign"  # the scans beside the test splits that false alarms are counted on
COMPOSITES = "composites"  # in place of a label set, and the folder of the pictures, where a detector learns these
DETECTOR, BACKBONE = "detector.pth", "backbone.pth"  # what a folder given as an arm may hold
GENERAL = {"backbone", "detector", "results.bbox", "results.segm", "results"}  # file names that name no arm


@dataclass(frozen=True)
class Beside:
    """What every batch shows beside the labelled scans as they are.

    `mix`: a build of segloc-synth, whose composites are the `share` of the batch. `benign`: scans without any object,
    an eighth of it. "" for none; `digest` tells what lay there. `paste`: objects of labelled scans on others of them.
    """

    mix: str
    share: float
    benign: str
    digest: str
    paste: bool = False

    @property
    def name(self) -> str:
        """What it adds to an arm's name."""
        return "+mix" * bool(self.mix) + "+paste" * self.paste + "+benign" * bool(self.benign)

    def __str__(self) -> str:
        told = [f"{100 * self.share:g} % of each batch composites of {self.mix}"] if self.mix else []
        told += ["objects of labelled scans pasted onto others"] if self.paste else []
        return ", ".join(told + ([f"an eighth of each batch benign scans of {self.benign}"] if self.benign else []))


@dataclass(frozen=True)
class Arm:
    """One way to a detector: `source` is `random`, `imagenet` or the file of weights (or results) with that `sha256`.

    `about` tells in a few words how the weights came to be, where something beside them does, and what is learnt
    `beside` the labelled scans.
    """

    name: str
    source: str
    sha256: str | None
    about: str = ""
    beside: Beside | None = None

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Arm":
        """What Config.as_dict wrote; TypeError or KeyError for anything else."""
        return cls(**{**value, "beside": Beside(**value["beside"]) if value.get("beside") else None})


@dataclass(frozen=True)
class Config:
    """One evaluation.

    `labels` as given (`1%`, `200`, `all`); `on`: the splits scored; `detector`: a key of recipe.FAMILIES;
    fine-tunings have the seeds `seed` to `seed + seeds - 1`; `given`: arms are only scored, nothing is trained;
    `judge`: benign scans to count false alarms on, "" for none; `judged` tells what lay there.
    """

    arms: tuple[Arm, ...]
    data: str
    labels: tuple[str, ...]
    on: Literal["test", "val"]
    detector: str
    seed: int
    seeds: int
    given: bool
    recipe: Recipe
    judge: str = ""
    judged: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As written to config.json: JSON types only, without fields at a default of theirs."""
        defaults = {field.name: field.default for field in fields(self)}
        value = {name: item for name, item in asdict(self).items() if item != defaults[name]}
        arms = [{key: item for key, item in arm.items() if (key, item) != ("beside", None)} for arm in value["arms"]]
        return {**value, "arms": arms, "labels": list(self.labels), "recipe": self.recipe.as_dict()}


def unit_folder(out: Path, arm: str, labels: str, seed: int) -> Path:
    """Where all of one unit lies, below the evaluation's folder."""
    return out / arm / labels / f"seed-{seed}"


def resolve_arms(
    checkpoints: tuple[str, ...], arch: str | None, width: int | None, beside: Beside | None = None
) -> tuple[tuple[Arm, ...], dict[str, Any]]:
    """Arms in the order given, and what they and the flags tell of `arch` and `width`, which all arms share.

    All of them learn `beside` the labelled scans what that says, and their names tell it: imagenet+mix+benign.

    A checkpoint is a run folder of segloc-train, a folder with a fine-tuned detector.pth, or a file of weights; the
    meta.json or detector.json beside it tells its architecture, which must agree with the flags and with the others'.
    click.ClickException otherwise, for a missing file, and where random or imagenet is named twice.
    """
    arms: list[Arm] = []
    told: list[tuple[str, dict[str, Any]]] = [("the command line", {"arch": arch, "width": width})]
    for given in checkpoints:
        if given in (RANDOM, IMAGENET):
            if given in {arm.name for arm in arms}:
                raise click.ClickException(f"--ckpt {given} was given twice")
            arms.append(Arm(given, given, None))
            continue
        file = weights_file(given)
        about = file.with_name("detector.json" if file.name == DETECTOR else "meta.json")
        known = _read_about(about) if about.is_file() else {}
        told.append((str(about), known))
        arms.append(Arm(free_name(file, arms), str(file), sha256(file), _in_words(known)))
    agreed = {key: _agreed(key, told) for key in ("arch", "width")}
    if beside:
        words = {arm: arm.about or ("" if arm.sha256 else arm.source) for arm in arms}
        arms = [replace(a, name=a.name + beside.name, about=f"{words[a]}; {beside}", beside=beside) for a in arms]
    return tuple(arms), {key: value for key, value in agreed.items() if value is not None}


def resolve_given(checkpoints: tuple[str, ...]) -> tuple[Arm, ...]:
    """Arms that are only scored: detector.pth files, COCO results jsons, or folders that hold either.

    click.ClickException for a path that is none of these.
    """
    arms: list[Arm] = []
    for given in checkpoints:
        path = Path(given)
        if path.is_dir() and not (path / DETECTOR).is_file() and any(path.glob("*/results.*.json")):
            digest = hashlib.sha256("".join(sha256(file) for file in sorted(path.glob("*/results.*.json"))).encode())
            arms.append(Arm(free_name(path / "results.bbox.json", arms), str(path.resolve()), digest.hexdigest()))
            continue
        file = path / DETECTOR if path.is_dir() else path
        if not file.is_file():
            raise click.ClickException(
                f"{given}: no {DETECTOR} and no SPLIT/results.*.json there; --eval-only scores those, or a results json"
            )
        if file.suffix in (".pth", ".pt", ".safetensors") and file.name != DETECTOR:
            raise click.ClickException(
                f"{file}: is no {DETECTOR}; a detector is scored under that name, with its detector.json beside it"
            )
        arms.append(Arm(free_name(file.resolve(), arms), str(file.resolve()), sha256(file)))
    return tuple(arms)


def weights_file(given: str) -> Path:
    """The file of weights that a --ckpt names, absolute; click.ClickException when there is none."""
    path = Path(given)
    if not path.exists():
        raise click.ClickException(f"{given}: no such file or folder; --ckpt takes those, random or imagenet")
    if path.is_file():
        return path.resolve()
    file = next((path / name for name in (BACKBONE, DETECTOR) if (path / name).is_file()), None)
    if file is None:
        raise click.ClickException(
            f"{path}: no {BACKBONE} or {DETECTOR} in it; is it a finished run of segloc-train or segloc-eval?"
        )
    return file.resolve()


def free_name(file: Path, arms: list[Arm]) -> str:
    """A folder's name for the arm of `file` that no other has: its folder's where the file's own says nothing."""
    folder = file.parent
    if file.name == DETECTOR and folder.name.startswith("seed-"):  # ARM/LABELS/seed-S/detector.pth
        folder = folder.parent.parent
    told = folder.name if file.stem in GENERAL else file.stem
    name = re.sub(r"[^\w.+&<>()-]", "_", told).strip(".") or "arm"
    if name.endswith((".json", ".txt", ".html")):  # files of those names lie beside the arms' folders
        name = name.replace(".", "_")
    return untaken(name, {arm.name for arm in arms} | {TRUTH, MIX, RANDOM, IMAGENET})


def untaken(name: str, taken: set[str]) -> str:
    """`name`, or `name` with the first number from 2 on behind it that is not `taken`."""
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)


def sha256(file: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read_about(path: Path) -> dict[str, Any]:
    """A meta.json or detector.json whose arch and width, where it has them, are a string and a fitting integer."""
    about = read_json(path)
    about = about if isinstance(about, dict) else {}
    arch, width = about.get("arch"), about.get("width")
    if arch is not None and not isinstance(arch, str):
        raise click.ClickException(f"{path}: arch {str(arch)[:40]!r} is no name; is it segloc-train's?")
    least, most = LIMITS["width"]
    if width is not None and not (type(width) is int and least <= width <= most):
        span = f"{least} to {most}"
        raise click.ClickException(f"{path}: width {str(width)[:40]!r} is no number from {span}; is it segloc-train's?")
    return about


def _in_words(about: dict[str, Any]) -> str:
    """What the meta.json of a run, or the detector.json of a detector, tells of its training."""
    entry = about.get("entry")
    training = entry.get("training") if isinstance(entry, dict) else None
    scans = training.get("samples") if isinstance(training, dict) else None
    if type(scans) is int:
        return f"a detector before: {scans:,} scans or composites seen"
    method, epochs, samples = about.get("method"), about.get("epochs"), about.get("samples_seen")
    if not isinstance(method, str) or type(epochs) is not int or type(samples) is not int:
        return ""
    start = f", from {about['init']}" if about.get("init") not in (None, RANDOM) else ""
    return f"pretrained by {method}: {epochs} epochs, {samples:,} pairs seen{start}"


def _agreed(key: str, told: list[tuple[str, dict[str, Any]]]) -> Any:
    """The one value of `key` among those told, None where nobody tells."""
    known = [(source, about[key]) for source, about in told if about.get(key) is not None]
    for source, value in known[1:]:
        if value != known[0][1]:
            raise click.ClickException(
                f"{source}: {key} {value}, but {known[0][0]} says {known[0][1]}; arms of one evaluation share it"
            )
    return known[0][1] if known else None
