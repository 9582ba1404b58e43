"""SegLoc (arXiv 2310.08421): instance contrast between two composites of a segment, negatives of other classes only.

MoCo-v2 on a detector's features: query and key are the same segment on two benign scans; RoIAlign takes the
pasted box at every pyramid level; the negatives of a query are the queue of its class, the last K keys whose
class is another one. It differs from the authors' published code where that departs from its own sources: the
momentum copy covers the attention, batch statistics do not give the positive away, and the queues hold keys of
the whole global batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segloc_train.backbone import LEVELS
from segloc_train.data import Batch
from segloc_train.encoder import (
    Encoder,
    embed_shuffled,
    momentum_copy,
    momentum_update,
)
from segloc_train.head import DIM
from segloc_train.queues import KeyStore


@dataclass
class Terms:
    """Part of a step's objective.

    Attributes:
        loss: float32 [levels]; the step's loss is the sum over parts and levels.
        accuracy: float32 [levels]; sums over parts to the share of queries that rank their positive first.
    """

    loss: Tensor
    accuracy: Tensor


def info_nce(
    queries: Tensor, keys: Tensor, negatives: Tensor, bias: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """InfoNCE (arXiv 1807.03748) of every sample and level.

    Args:
        queries, keys: float32 [N, levels, dim], unit norm; keys[i] is the positive of queries[i].
        negatives: float32 [levels, n, dim], unit norm.
        bias: float32 [N, n], 0 where sample i may see negative j, else -inf. It is added after the product:
            masking the factors would give 0 * inf.
        temperature: divides the cosine similarities.

    Returns:
        loss float32 [N, levels]: -log of the softmax weight of the positive.
        correct bool [N, levels]: the positive beats every visible negative.
    """
    positive = (queries * keys).sum(-1).T / temperature  # [levels, N]
    logits = torch.baddbmm(
        bias.expand(len(negatives), -1, -1),
        queries.transpose(0, 1),
        negatives.transpose(1, 2),
        alpha=1 / temperature,
    )
    loss = torch.logaddexp(positive, logits.logsumexp(-1)) - positive
    return loss.T, (positive > logits.detach().amax(-1)).T


class SegLoc(nn.Module):
    """Query encoder, its momentum copy and the class queues.

    A step is: iterate `losses`, calling backward on each part; step the optimiser of `parameters()`; `update`.
    """

    def __init__(
        self,
        arch: str,
        width: int,
        classes: int,
        queue_size: int,
        temperature: float,
        group: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """`group` is the number of samples per batch statistic; `generator` (CPU) draws the start keys."""
        super().__init__()
        self.query = Encoder(arch, width).to(device)
        self.query.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.key = momentum_copy(self.query)
        self.store = KeyStore(LEVELS, classes, queue_size, DIM, generator, device)
        self.temperature, self.group = temperature, group

    def losses(self, batch: Batch, permutation: Tensor) -> Iterator[Terms]:
        """The step's objective in parts, one per group of samples, so that only one group's graph is alive.

        `batch` holds B normalised pairs on the method's device, B a multiple of `group`; `permutation`
        int64 [B] shuffles the keys over the groups.

        The batch's keys enter the queues before the loss, not after it as in MoCo. There a query must not meet
        its own key as a negative; here it cannot, for the key is of its own class. Were all negatives older
        than the positive, short runs would learn to tell new keys from old ones, and nothing else.
        """
        size = len(batch.labels)
        keys = embed_shuffled(self.key, *batch.key, self.group, permutation)
        self.store.enqueue(keys, batch.labels)
        bias = self.store.bias()
        for rows in torch.arange(size, device=keys.device).split(self.group):
            queries = self.query(batch.query.images[rows], batch.query.boxes[rows])
            loss, correct = info_nce(queries, keys[rows], self.store.keys, bias[batch.labels[rows]], self.temperature)
            yield Terms(loss.sum(0) / size, correct.sum(0) / size)

    def update(self, momentum: float) -> None:
        """After the optimiser's step: move the momentum copy."""
        momentum_update(self.key, self.query, momentum)

    def get_extra_state(self) -> dict[str, Any]:
        """The key store's part of state_dict()."""
        return self.store.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The key store's part of load_state_dict()."""
        self.store.load_state_dict(state)
