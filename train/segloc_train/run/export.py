"""What a run leaves for others: SDANet's weights, the plain trunk, a start for any FPN detector, and meta.json."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segloc_synth.console import log
from segloc_synth.files import write_json
from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import COUNTER, save_tensors
from segloc_train.model.trunk import RESNETS, behind


def export(backbone: SDANet, arch: str, folder: Path, about: dict[str, Any]) -> None:
    """Write the exports into `folder`; `about` goes into meta.json beside normalisation and versions.

    A trunk of timm is written as trunk.*, a ResNet as resnet.pth and, with the pyramid, as detector_init.pth: stock
    mmdet has no model under timm's names.
    """
    weights, trunk = sdanet_weights(backbone), trunk_weights(backbone)
    save_tensors(folder / "backbone.pth", weights)
    save_tensors(folder / "backbone.safetensors", weights)
    if arch in RESNETS:
        save_tensors(folder / "resnet.pth", trunk)
        save_tensors(folder / "detector_init.pth", detector_weights(backbone))
    else:
        save_tensors(folder / "trunk.pth", trunk)
        save_tensors(folder / "trunk.safetensors", trunk)
        log.info("No detector_init.pth: stock mmdet has no counterpart of timm's %s", arch)
    told: dict[str, Any] = {"mean": backbone.shape.mean, "std": backbone.shape.std, "rgb": True}
    # What the plain model has beside the trunk's weights; torch does not miss BN's counters.
    told |= {"behind": [name for name in behind(arch, backbone.trunk) if not name.endswith(COUNTER)]}
    versions = {name: version(name) for name in ("segloc", "torch", "torchvision", "timm")}
    write_json(folder / "meta.json", {**about, **told, "versions": versions})


def sdanet_weights(backbone: SDANet) -> dict[str, Tensor]:
    """SDANet's state, on the CPU, contiguous: loads strictly into SDANet(arch, width)."""
    return {name: x.detach().cpu().contiguous() for name, x in backbone.state_dict().items()}


def trunk_weights(backbone: SDANet) -> dict[str, Tensor]:
    """The trunk under the plain model's names: loads there, with only what lies behind the last map missing."""
    weights = sdanet_weights(backbone)
    return {k.removeprefix("trunk."): x for k, x in weights.items() if k.startswith("trunk.")}


def detector_weights(backbone: SDANet) -> dict[str, Tensor]:
    """Trunk and pyramid under mmdet's names for a stock ResNet (`backbone.*`) and FPN (`neck.*`).

    A stock FPN has convolutions with bias and no BN, so each BN, in evaluation, is folded into the
    convolution before it. The attention has no counterpart and is left out.
    """
    weights = {f"backbone.{name}": x for name, x in trunk_weights(backbone).items()}
    parts = {"lateral_convs": backbone.pyramid.lateral, "fpn_convs": backbone.pyramid.output}
    for part, modules in parts.items():
        for i, block in enumerate(modules):
            assert isinstance(block, nn.Sequential)
            name = f"neck.{part}.{i}.conv"
            weights[f"{name}.weight"], weights[f"{name}.bias"] = fold_batch_norm(*block)
    return weights


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight [out, in, k, k] and bias [out] of the one convolution that equals norm(conv(x)) in evaluation."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    weight = conv.weight.double() * scale[:, None, None, None]
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return weight.float().detach().cpu().contiguous(), bias.float().detach().cpu()
