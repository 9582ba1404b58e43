"""From pyramid levels and one box per image to unit embeddings: RoIAlign, four convolutions, two hidden layers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from segloc_train.data.data import View
from segloc_train.model.backbone import LEVELS, STRIDES

ROI = 7  # cells a side
CONVS = 4
DIM = 128  # numbers of an embedding


class LevelBatchNorm(nn.Module):
    """BN whose scale and shift (if `affine`) the levels share, while each keeps its own running statistics.

    The levels' features differ in scale: one set of running statistics would be a mixture that fits none, and
    the head would see other numbers in evaluation than in training. In training it equals nn.BatchNorm1d or 2d.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, affine: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(LEVELS, channels))
        self.register_buffer("running_var", torch.ones(LEVELS, channels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """[N, channels] or [N, channels, H, W] of pyramid level `level` (0-based) -> the same shape."""
        mean, var = self.running_mean[level], self.running_var[level]
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training)


class RoiHead(nn.Module):
    """Embedding head, shared by the levels and run once per level (InsLoc, arXiv 2102.08318).

    Hidden layers are 4 * width wide: 1024 at the published width 256. Each number of an embedding has zero mean and
    unit variance over the batch before the vector is given unit norm, by BN without scale and shift, as in SimCLR's
    and MoCo-v3's code: hidden layers end in positive numbers, so without it all embeddings start in one narrow cone,
    and contrast then spreads them along one direction alone (docs/BENCHMARKS.md).
    """

    def __init__(self, width: int, dim: int = DIM) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(CONVS))
        self.norms = nn.ModuleList(LevelBatchNorm(width) for _ in range(CONVS))
        self.embed = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * ROI * ROI, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, 4 * width),
            nn.ReLU(),
            nn.Linear(4 * width, dim),
        )
        self.standardise = LevelBatchNorm(dim, affine=False)

    def forward(self, levels: Sequence[Tensor], view: View) -> Tensor:
        """Embeddings float32 [N, 5, dim] of unit norm, of the pasted objects in five maps [N, width, H_i, W_i]."""
        return self.embeddings(self.convolved(cells(levels, view.boxes)))

    def convolved(self, rois: Sequence[Tensor]) -> list[Tensor]:
        """What the convolutions make of each level's cells [N, width, 7, 7]; the same shapes."""
        out = []
        for level, x in enumerate(rois):
            for conv, norm in zip(self.convs, self.norms, strict=True):
                x = F.relu(norm(conv(x), level))
            out.append(x)
        return out

    def embeddings(self, convolved: Sequence[Tensor]) -> Tensor:
        """float32 [N, 5, dim] of unit norm."""
        found = [self.standardise(self.embed(x).float(), level) for level, x in enumerate(convolved)]
        return F.normalize(torch.stack(found, 1), dim=-1)


def cells(levels: Sequence[Tensor], boxes: Tensor) -> list[Tensor]:
    """RoIAlign of every level, [N, width, 7, 7] each.

    `boxes` float [N, 4] hold x1, y1, x2, y2 in pixels, the same on all levels, or [5, N, 4], each level's own.
    """
    number = torch.arange(boxes.shape[-2], dtype=boxes.dtype, device=boxes.device)[:, None]
    each = boxes if boxes.dim() == 3 else boxes.expand(LEVELS, -1, -1)
    return [
        roi_align(x, torch.cat([number, own], 1), ROI, 1 / stride, sampling_ratio=2, aligned=True)
        for x, own, stride in zip(levels, each, STRIDES, strict=True)
    ]
