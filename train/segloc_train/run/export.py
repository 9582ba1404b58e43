"""What a run leaves for others: SDANet's weights, a plain ResNet, a start for any FPN detector, and meta.json."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from segloc_synth.files import write_json
from segloc_train.data.augment import MEAN, STD
from segloc_train.model.backbone import SDANet
from segloc_train.model.checkpoint import save_tensors


def export(backbone: SDANet, folder: Path, about: dict[str, Any]) -> None:
    """Write the exports into `folder`; `about` goes into meta.json beside normalisation and versions."""
    weights = sdanet_weights(backbone)
    save_tensors(folder / "backbone.pth", weights)
    save_tensors(folder / "backbone.safetensors", weights)
    save_tensors(folder / "resnet.pth", resnet_weights(backbone))
    save_tensors(folder / "detector_init.pth", detector_weights(backbone))
    versions = {name: version(name) for name in ("segloc", "torch", "torchvision")}
    write_json(folder / "meta.json", {**about, "mean": MEAN, "std": STD, "rgb": True, "versions": versions})


def sdanet_weights(backbone: SDANet) -> dict[str, Tensor]:
    """SDANet's state, on the CPU, contiguous: loads strictly into SDANet(arch, width)."""
    return {name: x.detach().cpu().contiguous() for name, x in backbone.state_dict().items()}


def resnet_weights(backbone: SDANet) -> dict[str, Tensor]:
    """The trunk under torchvision's names: loads into torchvision.models.resnetXX, only fc missing."""
    weights = sdanet_weights(backbone)
    return {k.removeprefix("trunk."): x for k, x in weights.items() if k.startswith("trunk.")}


def detector_weights(backbone: SDANet) -> dict[str, Tensor]:
    """Trunk and pyramid under mmdet's names for a stock ResNet (`backbone.*`) and FPN (`neck.*`).

    A stock FPN has convolutions with bias and no BN, so each BN, in evaluation, is folded into the
    convolution before it. The attention has no counterpart and is left out.
    """
    weights = {f"backbone.{name}": x for name, x in resnet_weights(backbone).items()}
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
