"""The resolved configuration of one evaluation: everything that decides its numbers."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from segloc_synth.files import read_json

RANDOM, IMAGENET = "random", "imagenet"
ARCH, WIDTH = "resnet18", 64  # where neither a checkpoint nor a flag says
WIDTHS = (8, 2048)  # least and most channels of the pyramid


@dataclass(frozen=True)
class Arm:
    """One initialisation: `source` is `random`, `imagenet` or the weights' file, `sha256` the file's."""

    name: str
    source: str
    sha256: str | None


@dataclass(frozen=True)
class Config:
    """One evaluation. `labels` None means all training scans; `size` is in pixels of the longer side."""

    arms: tuple[Arm, ...]
    data: str
    labels: int | None
    epochs: int
    seed: int
    size: int
    batch_size: int
    lr: float
    arch: str
    width: int

    def as_dict(self) -> dict[str, Any]:
        """As written to config.json: JSON types only."""
        value = asdict(self)
        return {**value, "arms": list(value["arms"])}


def resolve_arms(checkpoints: tuple[str, ...], arch: str | None, width: int | None) -> tuple[tuple[Arm, ...], str, int]:
    """Arms in the order given, and the architecture and width that all of them share.

    A checkpoint is a run folder of segloc-train or a weights file; the meta.json in or beside it tells its
    architecture, which must agree with the flags and with the others'. click.ClickException otherwise, and for a
    missing file or an arm named twice.
    """
    arms: list[Arm] = []
    told: list[tuple[str, dict[str, Any]]] = [("the command line", {"arch": arch, "width": width})]
    for given in checkpoints:
        if given in (RANDOM, IMAGENET):
            arms.append(Arm(_free_name(given, arms), given, None))
            continue
        path = Path(given)
        if not path.exists():
            raise click.ClickException(f"{given}: no such file or folder; --ckpt takes those, random or imagenet")
        file = path / "backbone.pth" if path.is_dir() else path
        if not file.is_file():
            raise click.ClickException(f"{path}: no backbone.pth in it; is it a finished run of segloc-train?")
        if (meta := file.parent / "meta.json").is_file():
            told.append((str(meta), _read_meta(meta)))
        stem = path.resolve().name if path.is_dir() else file.stem
        name = file.resolve().parent.name if stem == "backbone" else stem
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        arms.append(Arm(_free_name(name, arms), str(file.resolve()), digest))
    return tuple(arms), _agreed("arch", told, ARCH), _agreed("width", told, WIDTH)


def _read_meta(path: Path) -> dict[str, Any]:
    """A meta.json whose arch and width, where it has them, are a string and a fitting integer."""
    about = read_json(path)
    about = about if isinstance(about, dict) else {}
    arch, width = about.get("arch"), about.get("width")
    if arch is not None and not isinstance(arch, str):
        raise click.ClickException(f"{path}: arch {str(arch)[:40]!r} is no name; is it segloc-train's?")
    if width is not None and not (type(width) is int and WIDTHS[0] <= width <= WIDTHS[1]):
        span = f"{WIDTHS[0]} to {WIDTHS[1]}"
        raise click.ClickException(f"{path}: width {str(width)[:40]!r} is no number from {span}; is it segloc-train's?")
    return about


def _free_name(name: str, arms: list[Arm]) -> str:
    taken = {arm.name for arm in arms}
    if name in (RANDOM, IMAGENET) and name in taken:
        raise click.ClickException(f"--ckpt {name} was given twice")
    return next(n for n in (name, *(f"{name}-{i}" for i in range(2, len(arms) + 3))) if n not in taken)


def _agreed(key: str, told: list[tuple[str, dict[str, Any]]], default: Any) -> Any:
    known = [(source, about[key]) for source, about in told if about.get(key) is not None]
    for source, value in known[1:]:
        if value != known[0][1]:
            raise click.ClickException(
                f"{source}: {key} {value}, but {known[0][0]} says {known[0][1]}; arms of one evaluation share it"
            )
    return known[0][1] if known else default
