"""SDANet: a trunk, a feature pyramid, and selective dense attention on every level, in one module.

The same class is pretrained here and fine-tuned inside the detector, so weights pass between the two stages
strictly and without renaming.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segloc_train.model.trunk import STRIDES as MAP_STRIDES
from segloc_train.model.trunk import build_trunk, grid_stride, maps

LEVELS = 5  # P2 to P6
STRIDES = (*MAP_STRIDES, 64)  # pixels per cell of each level


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
        return self.levels(merged)

    def levels(self, merged: Sequence[Tensor]) -> list[Tensor]:
        """Four maps of `width` channels -> five."""
        levels = [output(x) for output, x in zip(self.output, merged, strict=True)]
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]


class SimpleFeaturePyramid(FeaturePyramid):
    """The pyramid of a plain ViT, from its last map alone (ViTDet, arXiv 2203.16527), with BN where FPN has it.

    Args:
        channels, stride: of that map; the stride is one of MAP_STRIDES.
    """

    def __init__(self, channels: int, stride: int, width: int) -> None:
        steps = [int(math.log2(stride / own)) for own in MAP_STRIDES]  # doublings of the map's side
        super().__init__([channels // 2 ** max(0, step) for step in steps], width)
        self.resample = nn.ModuleList(_resampled(channels, step) for step in steps)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One map [N, channels, H, W] -> five maps of `width` channels, of strides 4 to 64."""
        (x,) = features
        return self.levels([lateral(own(x)) for lateral, own in zip(self.lateral, self.resample, strict=True)])


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
            else _max_pooled(x, size)
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
    """Backbone and neck of the detector: pictures in, five attended pyramid levels out.

    Args:
        arch: the trunk's name, as build_trunk takes it; the published one is resnet101.
        width: channels of every level; the published one is 256.

    Weights start at random. In training mode a batch needs at least 8 images: the channel branch normalises
    over the batch after global pooling.

    Attributes:
        shape: the trunk's, with the mean and std by which pictures are normalised.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, arch: str, width: int) -> None:
        super().__init__()
        self.trunk, self.shape = build_trunk(arch)
        channels, strides = self.shape.channels, self.shape.strides
        self.pyramid: FeaturePyramid
        if len(strides) == 1:
            self.pyramid = SimpleFeaturePyramid(channels[0], grid_stride(strides[0]), width)
        else:
            self.pyramid = FeaturePyramid(channels, width)
        self.attention = nn.ModuleList(SelectiveDenseAttention(width, i) for i in range(LEVELS))
        for name in ("mean", "std"):  # no weights: the architecture's
            value = torch.tensor(getattr(self.shape, name)).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """RGB float [N, 3, H, W] in 0..1 -> five maps [N, width, H/4, W/4] ... [N, width, H/64, W/64].

        Where a side is no multiple of 64, trunks differ in how they round.
        """
        levels = self.pyramid(maps(self.trunk, self.shape, (images - self.mean) / self.std))
        return tuple(attention(levels) for attention in self.attention)


def _conv_bn(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """Convolution without bias, then BN."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def _max_pooled(x: Tensor, size: torch.Size) -> Tensor:
    """F.adaptive_max_pool2d(x, size), in operations that ONNX has."""
    height, width = x.shape[-2] // size[0], x.shape[-1] // size[1]
    if (height * size[0], width * size[1]) == tuple(x.shape[-2:]):
        return F.max_pool2d(x, (height, width))
    if not torch.compiler.is_exporting():
        return F.adaptive_max_pool2d(x, size)
    for axis, cells in ((-2, size[0]), (-1, size[1])):
        side = x.shape[axis]
        ranges = [(i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells)]
        x = torch.stack([x.narrow(axis, first, last - first).amax(axis) for first, last in ranges], axis)
    return x


def _resampled(channels: int, step: int) -> nn.Sequential:
    """A map's side doubled `step` times, each by a transposed convolution to half the channels, or halved."""
    if step < 0:
        return nn.Sequential(*(nn.MaxPool2d(2, ceil_mode=True) for _ in range(-step)))
    layers: list[nn.Module] = []
    for own in (channels // 2**i for i in range(step)):
        if layers:
            layers += [_ChannelNorm(own), nn.GELU()]
        layers.append(nn.ConvTranspose2d(own, own // 2, 2, stride=2))
    return nn.Sequential(*layers)


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each cell of [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
