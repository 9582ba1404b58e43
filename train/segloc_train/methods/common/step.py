"""One step's global batch as the methods see it: groups of query views, and keys embedded in shuffled groups.

Batches are cut into groups of G samples, the unit of batch statistics and of random draws; every rank works on
its share of the groups. So what a step computes depends on the global batch alone, not on how many ranks share it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from segloc_train.data.augment import augment
from segloc_train.data.data import Batch, View
from segloc_train.data.order import derived_seed
from segloc_train.dist import ALONE, World
from segloc_train.model.encoder import averaged_statistics

WEIGHTS, START_KEYS, PERMUTATION, QUERY_VIEW, KEY_VIEW, METHOD = range(6)  # purposes of random numbers


@dataclass(frozen=True)
class Group:
    """G queries that share batch statistics.

    Attributes:
        view: augmented query pictures, with boxes and, where asked for, masks.
        rows: where they stand in the global batch.
        labels: int64 [G] on the device.
        generator: on the device, for the method's own draws.
    """

    view: View
    rows: slice
    labels: Tensor
    generator: torch.Generator


@dataclass(frozen=True)
class Step:
    """The step number `number` of a run.

    Attributes:
        batch: this rank's share of the pairs, as stored, on the device.
        labels: int64 [B] on the CPU, of the whole global batch.
        group: G.
        kind, crop: the augmentation's name, and the share of a picture's side that the network sees.
        seed: the run's.
    """

    batch: Batch
    labels: Tensor
    group: int
    kind: str
    seed: int
    number: int
    world: World = ALONE
    crop: float = 1.0

    @property
    def device(self) -> torch.device:
        """Where the pictures are."""
        return self.batch.query.images.device

    @cached_property
    def device_labels(self) -> Tensor:
        """`labels` on the device, copied without waiting."""
        return to_device(self.labels, self.device)

    def groups(self, query: nn.Module) -> Iterator[Group]:
        """This rank's groups of queries; the running statistics of `query` move once, by the mean over all groups."""
        return averaged_statistics(query, self._groups(), self.world)

    def _groups(self) -> Iterator[Group]:
        first = self.world.rank * len(self.batch.labels)
        for start in range(0, len(self.batch.labels), self.group):
            rows = slice(first + start, first + start + self.group)
            number = rows.start // self.group
            stored = self.batch.query.rows(slice(start, start + self.group))
            view = augment(stored, self.kind, self._generator(QUERY_VIEW, number), self.crop)
            yield Group(view, rows, self.device_labels[rows], self._generator(METHOD, number))

    @torch.no_grad()
    def keys(self, embed: Callable[[View], Any]) -> Any:
        """What `embed` makes of the key views of the whole global batch, in its order: [B, ...], or a tuple of such.

        Batch statistics mark all samples of a group alike. Were a key's group the same as its query's, the mark
        would give the positive away (MoCo, arXiv 1911.05722, section 3.3); so keys are permuted over the groups,
        and over the ranks with them.
        """
        size = len(self.labels)
        generator = torch.Generator().manual_seed(derived_seed(self.seed, PERMUTATION, self.number))
        permutation = torch.randperm(size, generator=generator)
        share = size // self.world.size
        mine = permutation[self.world.rank * share : (self.world.rank + 1) * share]
        view = self.batch.key.map(self.world.gather)
        out = []
        for i, rows in enumerate(mine.split(self.group)):
            number = self.world.rank * share // self.group + i
            stored = view.rows(to_device(rows, self.device))
            out.append(embed(augment(stored, self.kind, self._generator(KEY_VIEW, number), self.crop)))
        back = to_device(permutation.argsort(), self.device)

        def in_order(parts: list[Tensor]) -> Tensor:
            return self.world.gather(torch.cat(parts))[back]

        if isinstance(out[0], Tensor):
            return in_order(out)
        return tuple(in_order(list(parts)) for parts in zip(*out, strict=True))

    def _generator(self, purpose: int, group: int) -> torch.Generator:
        """On the device; its seed names the step and the group of the global batch, not the rank."""
        seed = derived_seed(self.seed, purpose, self.number, group)
        return torch.Generator(device=self.device).manual_seed(seed)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on `device`; to a GPU through pinned memory, so that the host does not wait."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)
