"""Trunks of SDANet: torchvision's ResNets, and of timm whatever gives a feature pyramid or is a plain ViT.

A trunk is the plain model without what lies behind its last feature map, under the plain model's own names.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from inspect import signature
from typing import Any

import click
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")  # torchvision's; timm's have a tag: resnet50.a1_in1k
STRIDES = (4, 8, 16, 32)  # pixels per cell of the maps that a pyramid is made of
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, of values in 0..1
# What lets a model of timm take pictures of any size; its weights then do not depend on the pictures.
ANY_SIZE = {"dynamic_img_size": True, "strict_img_size": False}
PATCH = "@"  # NAME@8: a ViT with patches of 8 pixels
SIDES = (64, 96)  # pixels at which a trunk is tried


@dataclass(frozen=True)
class Shape:
    """What a trunk makes of a picture.

    Attributes:
        channels, strides: of each map, finest first: of strides 4, 8, 16, 32, or of a plain ViT's patch alone.
        indices: which of the trunk's intermediate maps these are.
        mean, std: RGB, of values in 0..1, with which the trunk's pretrained weights want pictures normalised.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    indices: tuple[int, ...]
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def check_arch(arch: str) -> None:
    """click.ClickException unless `arch` names a trunk that can be made and takes pictures of any size."""
    if arch in RESNETS:
        return
    with torch.device("meta"):  # nothing is computed
        trunk, shape = build_trunk(arch)
        wanted = [grid_stride(stride) for stride in shape.strides]
        for side in SIDES:
            try:
                found = [tuple(x.shape[1:]) for x in maps(trunk.eval(), shape, torch.empty(1, 3, side, side))]
            except (RuntimeError, AssertionError, TypeError, ValueError):
                told = f"arch {arch!r}: takes no pictures of {side} pixels"
                tied = "img_size" in _parameters(arch.partition(PATCH)[0])
                raise click.ClickException(
                    f"{told}; its weights are tied to a picture's size" if tied else told
                ) from None
            if found != [(c, side // s, side // s) for c, s in zip(shape.channels, wanted, strict=True)]:
                raise click.ClickException(f"arch {arch!r}: its maps at {side} pixels are not as timm describes them")


def build_trunk(arch: str) -> tuple[Any, Shape]:
    """A trunk at random, weights from torch's global generator, and its shape.

    Args:
        arch: one of RESNETS, or a model of timm, with or without the tag of its weights ("convnext_tiny.fb_in22k"),
            a ViT also with another patch ("vit_tiny_patch16_224@8"). Drop path is 0.

    Raises:
        click.ClickException: no such model, or its maps have other strides.
    """
    if arch in RESNETS:
        trunk = getattr(torchvision.models, arch)(weights=None)
        channels = tuple(trunk.fc.in_features // 2**i for i in (3, 2, 1, 0))
        del trunk.fc, trunk.avgpool
        return trunk, Shape(channels, STRIDES, (0, 1, 2, 3))
    trunk = plain_model(arch)
    shape = _shape(arch, trunk)
    trunk.prune_intermediate_layers(shape.indices, prune_norm=len(shape.indices) > 1, prune_head=True)
    for module in trunk.modules():
        if hasattr(module, "drop_prob"):  # DropPath's; some models have it above 0
            module.drop_prob = 0.0
    return trunk, shape


def plain_model(arch: str, classes: int = 0) -> Any:
    """The whole model of timm that a trunk is cut from, at random; without a classifier where `classes` is 0.

    click.ClickException as in build_trunk.
    """
    import timm  # half a second, which ResNets do not need

    name, at, patch = arch.partition(PATCH)
    if not timm.is_model(name) or name.endswith("."):
        names = get_close_matches(name.partition(".")[0], sorted({*RESNETS, *timm.list_models()}), cutoff=0)
        raise click.ClickException(f"arch {arch[:60]!r} is unknown; the nearest are {', '.join(names)}")
    if at and patch not in map(str, range(4, 33)):
        raise click.ClickException(f"arch {arch[:60]!r}: {PATCH} is followed by a ViT's patch, 4 to 32 pixels")
    try:
        known = _parameters(name)
        chosen: dict[str, Any] = {key: value for key, value in ANY_SIZE.items() if key in known}
        if at:
            if "patch_size" not in known:
                raise click.ClickException(f"arch {arch!r}: {name} has no patches; leave {PATCH}{patch} out")
            chosen["patch_size"] = int(patch)
        return timm.create_model(name, num_classes=classes, **chosen)
    except (RuntimeError, AssertionError, TypeError) as error:  # a tag that is not there, among others
        raise click.ClickException(f"arch {arch[:60]!r}: timm refuses it: {' '.join(str(error).split())}") from None


@cache
def _parameters(name: str) -> frozenset[str]:
    """Names of what the class of a timm model, or what it is derived from, is made from."""
    import timm

    with torch.device("meta"):
        kind = type(timm.create_model(name, num_classes=0))
    return frozenset(key for one in kind.__mro__ for key in signature(vars(one).get("__init__", object)).parameters)


def _shape(arch: str, model: Any) -> Shape:
    """Shape of a timm model; click.ClickException for other strides."""
    told = [(info["num_chs"], info["reduction"]) for info in model.feature_info]
    cfg = model.pretrained_cfg
    strides = [stride for _, stride in told]
    if len(set(strides)) == 1 and len(strides) > 1:  # blocks that all look at the same cells: a plain ViT
        last = len(told) - 1
        return Shape((told[last][0],), (strides[last],), (last,), cfg["mean"], cfg["std"])
    if not set(STRIDES) <= set(strides):
        had = ", ".join(map(str, strides))
        raise click.ClickException(f"arch {arch!r}: its maps have strides {had}; a pyramid needs 4, 8, 16 and 32")
    indices = tuple(max(i for i, own in enumerate(strides) if own == stride) for stride in STRIDES)
    return Shape(tuple(told[i][0] for i in indices), STRIDES, indices, cfg["mean"], cfg["std"])


def behind(arch: str, trunk: nn.Module, classes: int = 0) -> list[str]:
    """Names in the plain model's state that its trunk lacks: what lies behind the last feature map.

    With `classes`, also those of a classifier for so many.
    """
    with torch.device("meta"):
        plain = getattr(torchvision.models, arch)() if arch in RESNETS else plain_model(arch, classes)
    return [name for name in plain.state_dict() if name not in trunk.state_dict()]


def maps(trunk: Any, shape: Shape, images: Tensor) -> list[Tensor]:
    """Feature maps [N, channels[i], H_i, W_i] of normalised images float [N, 3, H, W], as `shape` says.

    A ViT's map is brought to the stride that its patch is nearest to.
    """
    if isinstance(trunk, torchvision.models.ResNet):
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        found = []
        for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            x = stage(x)
            found.append(x)
        return found
    if len(shape.indices) > 1:
        return list(trunk.forward_intermediates(images, indices=shape.indices, intermediates_only=True))
    return [tokens(trunk, shape, images)]


def tokens(trunk: Any, shape: Shape, images: Tensor) -> Tensor:
    """A plain ViT's last map, after its last norm, [N, C, ceil(H/S), ceil(W/S)] of S = grid_stride(patch).

    Where the patch is not S, cells lie at the places of a grid of stride S, linearly interpolated.
    """
    patch, stride = shape.strides[0], grid_stride(shape.strides[0])
    cells = [-(-side // stride) for side in images.shape[-2:]]
    height, width = (-(-n * stride // patch) * patch for n in cells)
    padded = F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]), mode="replicate")
    (x,) = trunk.forward_intermediates(padded, indices=shape.indices, norm=True, intermediates_only=True)
    if patch != stride:
        x = F.interpolate(x, scale_factor=patch / stride, mode="bilinear", recompute_scale_factor=False)
    return x[..., : cells[0], : cells[1]]


def grid_stride(patch: int) -> int:
    """The stride among 4, 8, 16 and 32 that a ViT's patch is nearest to, by ratio."""
    return min(STRIDES, key=lambda stride: max(stride / patch, patch / stride))
