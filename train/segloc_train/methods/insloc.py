"""InsLoc (arXiv 2102.08318): MoCo-v2 on pasted boxes, with its box augmentation of the query on P5.

Published (configuration with a pyramid): on P5 the query's features are taken from an anchor that overlaps the
pasted box by more than half, drawn at random. Anchors lie on the stride-16 map, of 2, 4, 8 and 16 strides and five
aspect ratios. Differences: the anchor is drawn evenly among those that overlap, without thinning them first by
non-maximum suppression of random scores (which the host would have to wait for), so near the box's own place and
size it is drawn more often; anchors are centred in the cells (published: on their corners) and cut off at the
picture's edges, for there is nothing beyond; where none overlaps, as with objects under about 23 pixels, the pasted
box is taken (published: one of the 4,000 best anchors, hardly ever needed there, since its objects have at least
128 pixels). P2 to P6 instead of P2 to P5.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torchvision.ops import box_iou

from segloc_train.data.data import View
from segloc_train.methods import moco
from segloc_train.methods.common.step import Group
from segloc_train.model.backbone import LEVELS

STRIDE = 16  # pixels between anchors
SCALES = (2, 4, 8, 16)  # of the stride
RATIOS = (0.5, 0.75, 1.0, 1.5, 2.0)  # height by width
OVERLAP = 0.5  # intersection over union with the pasted box, at least
P5 = 3  # among P2 to P6


class Method(moco.Method):
    """MoCo whose queries look at a shifted box on P5."""

    def query_view(self, group: Group) -> View:
        boxes = group.view.boxes.expand(LEVELS, -1, -1).clone()
        boxes[P5] = shifted(group.view.boxes, group.view.images.shape[-1], group.generator)
        return group.view._replace(boxes=boxes)


def shifted(boxes: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """For each of boxes float32 [N, 4] an anchor drawn among those that overlap it by half, or the box itself.

    `size` is the picture's side in pixels; x1, y1, x2, y2 in pixels in and out.
    """
    candidates = anchors(size, boxes.device)
    overlaps = box_iou(boxes, candidates) > OVERLAP
    draws = torch.rand(overlaps.shape, generator=generator, device=boxes.device)
    chosen = candidates[(draws + overlaps).argmax(1)]  # draws are below 1
    return torch.where(overlaps.any(1, keepdim=True), chosen, boxes)


@lru_cache(maxsize=4)
def anchors(size: int, device: torch.device) -> Tensor:
    """float32 [A, 4]: all anchors of a square picture, cut off at its edges."""
    middle = torch.arange(STRIDE / 2, size, STRIDE)
    side = STRIDE * torch.tensor(SCALES, dtype=torch.float32)[:, None]
    ratio = torch.tensor(RATIOS).sqrt()
    half = torch.stack([side / ratio, side * ratio], -1).reshape(-1, 2) / 2  # x, y
    centre = torch.cartesian_prod(middle, middle)
    corners = torch.cat([centre[:, None] - half, centre[:, None] + half], -1)
    return corners.reshape(-1, 4).clamp(0, size).to(device)
