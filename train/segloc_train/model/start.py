"""What a backbone starts from: ImageNet weights, an earlier run's, or a trunk's from any file under its own names."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from segloc_synth.files import read_json
from segloc_train.model.backbone import LEVELS, SDANet
from segloc_train.model.checkpoint import COUNTER, load_strict, load_tensors
from segloc_train.model.imagenet import fetch, pretrained
from segloc_train.model.trunk import RESNETS, behind, plain_model

RANDOM, IMAGENET = "random", "imagenet"
META, DETECTOR_META = "meta.json", "detector.json"  # beside a run's weights, and a detector's


def initialise(backbone: SDANet, arch: str, source: str) -> str:
    """Load the weights that `--init` names into `backbone`; returns a line for the log.

    Args:
        backbone: SDANet(arch, ...), its weights at random, on any device.
        source: "random": leave them so. "imagenet": those of `pretrained(arch)` into the trunk. Else a path: a folder
            of a finished run (its backbone.pth), or a .pth, .pt or .safetensors file of named tensors, either SDANet's
            (backbone.pth, epoch_NNN.pt) or those of the plain model `arch` at torchvision or timm (trunk.pth,
            resnet.pth), whose classifier is left out; these go into the trunk.

    Raises:
        click.ClickException: one line, for a file that is missing, damaged, holds more than tensors (nothing is
            unpickled) or does not fit: its names and shapes must match one of the two sets without remainder.
    """
    if source == RANDOM:
        return "weights at random"
    if source == IMAGENET:
        known = pretrained(arch)
        load_trunk(backbone, arch, fetch(known), known.file)
        return f"trunk from {known}, pyramid and attention at random"
    path = Path(source)
    if path.is_dir():
        path = path / "backbone.pth"
        if not path.is_file():
            raise click.ClickException(
                f"{source}: no backbone.pth in it; name a finished run, or an epoch_NNN.pt of one that is not"
            )
    tensors = load_tensors(path)
    if any(name.split(".")[0] in ("trunk", "pyramid", "attention") for name in tensors):
        known_width, own = _width(tensors), _width(backbone.state_dict())
        if known_width not in (None, own):
            raise click.ClickException(
                f"{path}: is of width {known_width}, this run has {own}; name weights of that width"
            )
        load_strict(backbone, tensors, path)
        check_normalisation(backbone, path.with_name(META))
        return f"backbone from {path}"
    load_trunk(backbone, arch, tensors, path)
    check_normalisation(backbone, path.with_name(META))
    return f"trunk from {path}, pyramid and attention at random"


def _width(tensors: Mapping[str, Tensor]) -> int | None:
    """The width that all levels of an SDANet's pyramid have; None where they do not agree on one."""
    laterals = (tensors.get(f"pyramid.lateral.{level}.0.weight") for level in range(LEVELS - 1))
    widths = {len(one) if one is not None and one.ndim == 4 else None for one in laterals}
    return widths.pop() if len(widths) == 1 else None


def check_source(arch: str, width: int, source: str) -> None:
    """Raise what `initialise` would: before a run folder is made, so that a mistake leaves none behind."""
    if source != RANDOM:
        initialise(SDANet(arch, width), arch, source)


def origin(arch: str, source: str) -> dict[str, str] | None:
    """File, tag and licence of the pretrained weights that a start goes back to, where it tells of any.

    `source` is as initialise takes it, or a detector.pth or its folder.
    """
    if source == IMAGENET:
        return pretrained(arch).about()
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    for file in (folder / META, folder / DETECTOR_META):
        told = read_json(file) if source != RANDOM and file.is_file() else None
        if isinstance(told, dict) and isinstance(told.get("pretrained"), dict):
            return dict(told["pretrained"])
    return None


def check_normalisation(backbone: SDANet, path: Path) -> None:
    """click.ClickException where a meta.json or detector.json, if it is there, tells of another mean or std.

    Files of before these followed the weights say nothing, or ImageNet's, which were everyone's.
    """
    told = read_json(path) if path.is_file() else None
    for name in ("mean", "std"):
        value, own = told.get(name) if isinstance(told, dict) else None, list(getattr(backbone.shape, name))
        if value not in (None, own):
            raise click.ClickException(
                f"{path}: {name} is {str(value)[:60]}, and pictures for this architecture are normalised by {own}; "
                "name the tag of its weights in --arch"
            )


def load_trunk(backbone: SDANet, arch: str, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Put a plain model's weights into the trunk, strictly but for what lies behind it and BN's counters.

    Weights of another patch or picture size are resampled, and published ones under other names than timm's renamed,
    where timm knows how. click.ClickException names `source` and what is missing, unexpected or misshapen.
    """
    own, left = backbone.trunk.state_dict(), set(behind(arch, backbone.trunk, classes=1))
    fitting = all(name in tensors and tensors[name].shape == x.shape for name, x in own.items())
    if arch not in RESNETS and not (fitting and set(tensors) <= {*own, *left}):
        tensors = _as_timm(arch, tensors)
    if not set(own) & set(tensors):
        raise click.ClickException(
            f"{source}: neither SDANet's names (trunk.{next(iter(own))}, ...) nor those of {arch} ({next(iter(own))}, "
            f"...): unexpected {', '.join(list(tensors)[:3])}; rename them, without a prefix such as module."
        )
    counters = {name: x.new_zeros(()) for name, x in own.items() if name.endswith(COUNTER)}
    load_strict(backbone.trunk, counters | {name: x for name, x in tensors.items() if name not in left}, source)


def _as_timm(arch: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What timm's own loading makes of a state for this model; the state itself where it fails at that."""
    model = plain_model(arch)
    convert: Any = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    try:
        with torch.no_grad():
            return convert(dict(tensors), model) if convert else tensors
    except (KeyError, IndexError, AttributeError, RuntimeError, AssertionError, ValueError, TypeError):
        return tensors  # names that do not fit are told by whoever loads it
