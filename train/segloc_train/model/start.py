"""What a backbone starts from: torchvision's ImageNet weights, an earlier run's, or any torchvision-style ResNet."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

import click
import torch
import torchvision
from torch import Tensor

from segloc_train.model.backbone import LEVELS, SDANet
from segloc_train.model.checkpoint import load_strict, load_tensors

RANDOM, IMAGENET = "random", "imagenet"
COUNTER = ".num_batches_tracked"  # of BN: decides nothing here, and older files of torchvision lack it


def initialise(backbone: SDANet, arch: str, source: str) -> str:
    """Load the weights that `--init` names into `backbone`; returns a line for the log.

    Args:
        backbone: SDANet(arch, ...), its weights at random, on any device.
        source: "random": leave them so. "imagenet": torchvision's best for `arch` into the trunk. Else a path:
            a folder of a finished run (its backbone.pth), or a .pth, .pt or .safetensors file of named tensors,
            either SDANet's (backbone.pth, epoch_NNN.pt) or a ResNet's under torchvision's names (conv1.weight,
            layer1.0.conv1.weight, ...; fc.* is left out), which goes into the trunk.

    Raises:
        click.ClickException: one line, for a file that is missing, damaged, holds more than tensors (nothing is
            unpickled) or does not fit: its names and shapes must match one of the two sets without remainder.
    """
    if source == RANDOM:
        return "weights at random"
    if source == IMAGENET:
        file = load_imagenet(backbone, arch)
        return f"trunk from {file}, pyramid and attention at random"
    path = Path(source)
    if path.is_dir():
        path = path / "backbone.pth"
        if not path.is_file():
            raise click.ClickException(
                f"{source}: no backbone.pth in it; name a finished run, or an epoch_NNN.pt of one that is not"
            )
    tensors = load_tensors(path)
    if any(name.split(".")[0] in ("trunk", "pyramid", "attention") for name in tensors):
        known, own = _width(tensors), _width(backbone.state_dict())
        if known not in (None, own):
            raise click.ClickException(f"{path}: is of width {known}, this run has {own}; name weights of that width")
        load_strict(backbone, tensors, path)
        return f"backbone from {path}"
    if not {"conv1.weight", "layer1.0.conv1.weight"} & set(tensors):
        raise click.ClickException(
            f"{path}: neither SDANet's names (trunk.conv1.weight, ...) nor torchvision's of a ResNet (conv1.weight, "
            f"...): unexpected {', '.join(list(tensors)[:3])}; rename them, without a prefix such as module."
        )
    load_trunk(backbone, tensors, path)
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


def load_imagenet(backbone: SDANet, arch: str) -> Path:
    """Put torchvision's ImageNet weights into the trunk, the rest stays as it is; returns the file they come from.

    The file lies in torch.hub's cache and is fetched where it is not. click.ClickException when it is damaged, or
    not there and cannot be fetched, and where there is no home folder for that cache.
    """
    url = torchvision.models.get_model_weights(arch).DEFAULT.url
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if cached.parts[0] == "~":  # else a folder of that name is made here
        raise click.ClickException("imagenet: this user has no home folder; name one for the weights by $TORCH_HOME")
    try:
        if not cached.is_file():
            cached.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(cached), cached.stem.split("-")[-1], progress=False)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise click.ClickException(
            f"imagenet: cannot fetch {url} ({reason}); fetch it elsewhere and put it at {cached}"
        ) from None
    try:
        tensors = load_tensors(cached)
    except click.ClickException as error:
        raise click.ClickException(f"imagenet: {error.message}; delete the file to fetch it anew") from None
    load_trunk(backbone, tensors, cached)
    return cached


def load_trunk(backbone: SDANet, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Put a ResNet's weights under torchvision's names into the trunk, strictly but for fc.* and BN's counters.

    click.ClickException names `source` and what is missing, unexpected or misshapen.
    """
    zeros = {name: x.new_zeros(()) for name, x in backbone.trunk.state_dict().items() if name.endswith(COUNTER)}
    trunk = {name: x for name, x in tensors.items() if not name.startswith("fc.")}
    load_strict(backbone.trunk, zeros | trunk, source)
