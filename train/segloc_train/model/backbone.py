"""SDANet: ResNet, feature pyramid, and selective dense attention on every level, in one module.

The same class is pretrained here and fine-tuned inside the detector, so weights pass between the two stages
strictly and without renaming.
"""

from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101")
LEVELS = 5  # P2 to P6
STRIDES = (4, 8, 16, 32, 64)  # pixels per cell of each level


class FeaturePyramid(nn.Module):
    """FPN (arXiv 1612.03144) with BN and without activations: C2-C5 in, P2-P6 out, P6 = P5 subsampled."""

    def __init__(self, in_channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_conv_bn(channels, width, 1) for channels in in_channels)
        self.output = nn.ModuleList(_conv_bn(width, width, 3) for _ in in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps [N, in_channels[i], H_i, W_i], finest first -> five maps of `width` channels."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            size = merged[i - 1].shape[-2:]
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size=size, mode="nearest")
        levels = [output(x) for output, x in zip(self.output, merged, strict=True)]
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]


class GlobalContext(nn.Module):
    """GCNet's context block (arXiv 1904.11492): attention pooling, bottleneck, added to every cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(width // 16, 8)  # ratio 1/16 as published; narrow pyramids keep at least 8
        self.attend = nn.Conv2d(width, 1, 1)
        last = nn.Conv2d(hidden, width, 1)
        nn.init.zeros_(last.weight)  # the block starts as the identity
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.transform = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """[N, width, H, W] -> the same shape."""
        weights = self.attend(x).flatten(2).softmax(-1)  # [N, 1, HW]
        context = (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(-1)  # [N, width, 1, 1]
        return x + self.transform(context)


class SelectiveDenseAttention(nn.Module):
    """Selective dense attention of one level (PIDray, arXiv 2108.07020, section 4).

    All five maps are brought to this level's size, mixed with weights that a softmax over the levels gives,
    once per channel and once per position, refined by global context and added to the level's own map. The
    five convolutions of each branch are written as one with five times the outputs.
    """

    def __init__(self, width: int, level: int) -> None:
        super().__init__()
        self.width, self.level = width, level
        self.squeeze = nn.Sequential(nn.Conv2d(width, width // 2, 1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU())
        self.channel = nn.Conv2d(width // 2, LEVELS * width, 1)
        self.spatial = nn.Conv2d(2, LEVELS, 7, padding=3, bias=False)
        self.refine = GlobalContext(width)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Five maps [N, width, H_i, W_i] -> [N, width, H, W] of this module's level."""
        own = levels[self.level]
        size = own.shape[-2:]
        maps = [
            own
            if i == self.level
            else F.adaptive_max_pool2d(x, size)
            if i < self.level
            else F.interpolate(x, size=size, mode="nearest")
            for i, x in enumerate(levels)
        ]
        total = maps[0] + maps[1] + maps[2] + maps[3] + maps[4]
        pooled = self.squeeze(total.mean((2, 3), keepdim=True))
        by_channel = self.channel(pooled).unflatten(1, (LEVELS, self.width)).softmax(1)
        extremes = torch.cat([total.mean(1, keepdim=True), total.amax(1, keepdim=True)], 1)
        by_place = self.spatial(extremes).softmax(1)
        # Softmax computes in float32 under autocast; the maps, and their weighted sum, stay as they are.
        by_channel, by_place = by_channel.to(total.dtype), by_place.to(total.dtype)
        mixed = torch.zeros_like(total)
        for i, x in enumerate(maps):
            mixed = torch.addcmul(mixed, x, by_channel[:, i])
            mixed = torch.addcmul(mixed, x, by_place[:, i : i + 1])
        return self.refine(mixed) + own


class SDANet(nn.Module):
    """Backbone and neck of the detector: images in, five attended pyramid levels out.

    Args:
        arch: one of ARCHS, torchvision's names; the published one is resnet101.
        width: channels of every level; the published one is 256.

    Weights start at random. In training mode a batch needs at least 8 images: the channel branch normalises
    over the batch after global pooling.
    """

    def __init__(self, arch: str, width: int) -> None:
        super().__init__()
        if arch not in ARCHS:
            raise ValueError(f"arch {arch!r} is none of {', '.join(ARCHS)}")
        trunk = getattr(torchvision.models, arch)(weights=None)
        channels = [trunk.fc.in_features // 2**i for i in (3, 2, 1, 0)]
        del trunk.fc, trunk.avgpool
        self.trunk = trunk
        self.pyramid = FeaturePyramid(channels, width)
        self.attention = nn.ModuleList(SelectiveDenseAttention(width, i) for i in range(LEVELS))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalised images float [N, 3, H, W] -> five maps [N, width, H/4, W/4] ... [N, width, H/64, W/64]."""
        trunk = self.trunk
        x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(images))))
        features = []
        for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
            x = stage(x)
            features.append(x)
        levels = self.pyramid(features)
        return tuple(attention(levels) for attention in self.attention)


def _conv_bn(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Convolution without bias, then BN."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
