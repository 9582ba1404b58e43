"""CP2 (arXiv 2203.11709): what lies under the segment's mask is pooled and contrasted, and told from what does not.

Two losses: MoCo's on the mean of the foreground cells, and, weighted 0.2, a dense one that pulls foreground cells of
query and key together, away from the key's pairs with background cells. As in the authors' code, each foreground
cell of the key is compared with all cells of the query, at temperature 1. Published: a segmentation network on whole
pictures with pasted rectangles, a cell's class that of its middle pixel. Here: real masks, by which a cell is
foreground when half of it is, and RoIAlign's 7 x 7 cells of a box half as large again as the pasted one, so that
there is background in it, on every level; what lies beyond the picture is zero, and background. Nothing is known of
classes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from segloc_train.data.data import View
from segloc_train.methods.common.contrast import info_nce
from segloc_train.methods.common.method import Contrast, Settings, Terms
from segloc_train.methods.common.step import Step
from segloc_train.model.head import DIM, ROI, RoiHead, cells

DENSE = 0.2  # weight of the dense loss
GROWN = 1.5  # side of the box that is looked at, by the pasted one's


class MaskedHead(RoiHead):
    """Cells of a grown box, and which of them are the segment's."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.embed = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.ReLU(), nn.Conv2d(4 * width, DIM, 1))

    def forward(self, levels: Sequence[Tensor], view: View) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """Unit vectors of the foreground's mean [N, 5, dim] and of each cell [N, 5, 49, dim]; foreground [N, 49]."""
        boxes = grown(view.boxes)
        maps = [
            self.standardise(self.embed(x).float(), level)
            for level, x in enumerate(self.convolved(cells(levels, boxes)))
        ]
        dense = F.normalize(torch.stack([x.flatten(2).mT for x in maps], 1), dim=-1)
        assert view.masks is not None
        inside = foreground(view.masks, boxes)
        pooled = (dense * inside[:, None, :, None]).sum(2)
        return F.normalize(pooled, dim=-1), dense, inside


def grown(boxes: Tensor) -> Tensor:
    """Boxes float [N, 4] of the same centres, GROWN times as large."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * GROWN / 2
    return torch.cat([middle - half, middle + half], 1)


def foreground(masks: Tensor, boxes: Tensor) -> Tensor:
    """float32 [N, 49], 1 for cells that uint8 masks [N, S, S] cover by half, and for the cell covered most."""
    number = torch.arange(len(boxes), dtype=boxes.dtype, device=boxes.device)[:, None]
    rois = torch.cat([number, boxes], 1)
    share = roi_align(masks[:, None].float(), rois, ROI, sampling_ratio=4, aligned=True).flatten(1)
    return ((share >= 0.5) | (share == share.amax(1, keepdim=True))).float()


class Method(Contrast):
    """MoCo on masked means, with a dense loss."""

    needs_masks = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, MaskedHead(settings.width))

    def embed(self, view: View) -> Tensor:
        return self.query(view)[0]

    def losses(self, step: Step) -> Iterator[Terms]:
        """As in moco.py, keys enter the queue before the loss."""
        keys, dense, inside = step.keys(self.key)
        slots = self.store.enqueue(keys, step.labels)
        for group in step.groups(self.query):
            queries, parts, mine = self.query(group.view)
            rows = group.rows
            whole, correct = info_nce(queries, keys[rows], *self.negatives(self.store, slots, group))
            local = dense_loss(parts, mine, dense[rows], inside[rows])
            yield Terms.of(whole + DENSE * local, correct, step)


def dense_loss(queries: Tensor, mine: Tensor, keys: Tensor, theirs: Tensor) -> Tensor:
    """[N, levels]: mean over pairs of foreground cells of -log softmax over the query's cells, per key's cell.

    queries, keys: unit vectors [N, levels, cells, dim]; mine, theirs: 0/1 [N, cells].
    """
    logs = (queries @ keys.mT).log_softmax(2)  # [N, levels, query's cell, key's cell]
    pairs = mine[:, None, :, None] * theirs[:, None, None, :]
    return -(logs * pairs).sum((2, 3)) / pairs.sum((2, 3))
