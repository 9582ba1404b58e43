"""DenseCL (arXiv 2011.09157) inside the RoI: besides the object's embedding, each of its cells is contrasted.

A query's cell is matched with that cell of its key's RoI whose backbone features are most alike; negatives are a
second queue, of the keys' projections averaged over their cells. Half of the loss is the global one. Published:
cells of the whole picture on a ResNet's last map, projected directly. Here: the 7 x 7 cells of RoIAlign on the
pasted box, on every level; they are matched as RoIAlign gives them and projected after the head's convolutions.
Nothing is known of classes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segloc_train.data.data import View
from segloc_train.methods.common.contrast import info_nce
from segloc_train.methods.common.method import Contrast, Settings, Terms
from segloc_train.methods.common.queues import KeyStore
from segloc_train.methods.common.step import Step
from segloc_train.model.head import DIM, LevelBatchNorm, RoiHead, cells

DENSE = 0.5  # share of the dense loss, lambda in the source


class DenseHead(RoiHead):
    """RoiHead with a second branch of two 1x1 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.dense = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.ReLU(), nn.Conv2d(4 * width, DIM, 1))
        self.standardise_cells = LevelBatchNorm(DIM, affine=False)

    def forward(self, levels: Sequence[Tensor], view: View) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Unit vectors: embeddings [N, 5, dim]; of each cell its projection [N, 5, 49, dim] and its backbone features
        [N, 5, 49, width]; the mean projection [N, 5, dim]."""
        rois = cells(levels, view.boxes)
        convolved = self.convolved(rois)
        projected = [self.standardise_cells(self.dense(x).float(), level) for level, x in enumerate(convolved)]
        mean = torch.stack([x.mean((2, 3)) for x in projected], 1)
        return self.embeddings(convolved), unit_cells(projected), unit_cells(rois), F.normalize(mean, dim=-1)


def unit_cells(maps: Sequence[Tensor]) -> Tensor:
    """[N, C, 7, 7] of each level -> float32 [N, levels, 49, C] of unit norm."""
    return F.normalize(torch.stack([x.flatten(2).mT.float() for x in maps], 1), dim=-1)


class Method(Contrast):
    """MoCo on objects and on their cells."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, DenseHead(settings.width))
        self.dense_store = self.new_store(settings)

    def stores(self) -> list[KeyStore]:
        return [self.store, self.dense_store]

    def embed(self, view: View) -> Tensor:
        return self.query(view)[0]

    def losses(self, step: Step) -> Iterator[Terms]:
        """As in moco.py, keys enter the queues before the loss."""
        keys, dense, features, means = step.keys(self.key)
        slots = [store.enqueue(x, step.labels) for store, x in zip(self.stores(), (keys, means), strict=True)]
        for group in step.groups(self.query):
            queries, parts, looks, _ = self.query(group.view)
            rows = group.rows
            whole, correct = info_nce(queries, keys[rows], *self.negatives(self.store, slots[0], group))
            partners = matched(looks.detach(), features[rows], dense[rows])
            negatives = self.negatives(self.dense_store, slots[1], group, parts.shape[2])
            each, _ = info_nce(by_cell(parts), by_cell(partners), *negatives)
            local = each.unflatten(0, (len(queries), -1)).mean(1)
            yield Terms.of((1 - DENSE) * whole + DENSE * local, correct, step)


def matched(looks: Tensor, features: Tensor, dense: Tensor) -> Tensor:
    """For each cell of the query the key's dense vector at the most similar cell.

    looks, features: [N, levels, cells, C], unit, of query and key; dense: [N, levels, cells, dim], the key's.
    """
    best = (looks @ features.mT).argmax(-1, keepdim=True)
    return dense.gather(2, best.expand(-1, -1, -1, dense.shape[-1]))


def by_cell(x: Tensor) -> Tensor:
    """[N, levels, cells, dim] -> [N * cells, levels, dim]."""
    return x.transpose(1, 2).flatten(0, 1)
