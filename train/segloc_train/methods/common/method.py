"""What a method is, and what the contrastive ones share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from segloc_train.data.data import View
from segloc_train.methods.common.queues import KeyStore
from segloc_train.methods.common.step import Group, Step
from segloc_train.model.backbone import LEVELS
from segloc_train.model.encoder import Encoder, momentum_copy, momentum_update
from segloc_train.model.head import DIM, RoiHead


@dataclass(frozen=True)
class Settings:
    """What a method is built from. `generator` (CPU) draws start keys; weights come from torch's global one."""

    arch: str
    width: int
    classes: int
    queue_size: int
    temperature: float
    generator: torch.Generator
    device: torch.device


@dataclass(frozen=True)
class Terms:
    """A group's share of a step's objective.

    Attributes:
        loss: float32 [levels], summed over the group's samples and divided by the global batch; the step's loss
            is the sum over groups, ranks and levels.
        accuracy: float32 [levels]; sums likewise to the share of queries that are answered right.
    """

    loss: Tensor
    accuracy: Tensor

    @classmethod
    def of(cls, loss: Tensor, correct: Tensor, step: Step) -> "Terms":
        """From per-sample loss float32 [G, levels] and bool [G, levels]."""
        size = len(step.labels)
        return cls(loss.sum(0) / size, correct.sum(0) / size)


class Method(nn.Module):
    """A pretraining method: `methods/NAME.py` holds one class `Method` of this kind, `--method NAME` trains it.

    A step is: iterate `losses(step)`, calling backward on each part, so that one group's graph is alive at a
    time; step the optimiser of the parameters that take gradients; `update`.

    Attributes:
        query: the encoder that learns; `query.backbone` is what a run exports.
        needs_masks: must the views carry masks?
    """

    needs_masks = False
    query: Encoder

    def losses(self, step: Step) -> Iterator[Terms]:
        """The parts of the step's objective on this rank, one per group of `step.groups(self.query)`."""
        raise NotImplementedError

    def embed(self, view: View) -> Tensor:
        """Embeddings [N, levels, dim] by which pairs are found again in `held_out_accuracy`."""
        return self.query(view)

    def branches(self) -> list[Encoder]:
        """The encoders: what --precision and --compile are about."""
        return [module for module in self.children() if isinstance(module, Encoder)]

    def update(self, momentum: float) -> None:
        """After the optimiser's step; `momentum` is that of the key branch."""

    def health(self) -> dict[str, float]:
        """Numbers for the log that show failures of the method's own."""
        return {}


class Contrast(Method):
    """A query encoder, its momentum copy and a store of keys (MoCo, arXiv 1911.05722).

    Attributes:
        by_class: has each class a queue of its own, or is there one for all?
    """

    by_class = False

    def __init__(self, settings: Settings, head: nn.Module | None = None) -> None:
        """`head` is InsLoc's RoiHead where none is given."""
        super().__init__()
        encoder = Encoder(settings.arch, settings.width, head or RoiHead(settings.width))
        self.query = encoder.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.key: Encoder = momentum_copy(self.query)  # type: ignore[assignment]
        self.store = self.new_store(settings)
        self.temperature, self.classes = settings.temperature, settings.classes

    def new_store(self, settings: Settings) -> KeyStore:
        """A store of K start keys on every level."""
        classes = settings.classes if self.by_class else 0
        return KeyStore(LEVELS, classes, settings.queue_size, DIM, settings.generator, settings.device)

    def stores(self) -> list[KeyStore]:
        """All stores, which a state holds."""
        return [self.store]

    def negatives(
        self, store: KeyStore, slots: Tensor, group: Group, each: int = 1
    ) -> tuple[Tensor, Tensor, float, Tensor]:
        """Negatives where classes are not known, as info_nce takes them: the last K keys but the query's own.

        `slots` is where the keys of the whole global batch lie, which entered the queue before; each sample of the
        group has `each` queries, one after the other.
        """
        own = slots[group.rows]
        seen = store.recent.repeat(len(own), 1).scatter_(1, own[:, None], False)
        rows = torch.arange(len(own), device=own.device).repeat_interleave(each)
        return store.keys, seen, self.temperature, rows

    def update(self, momentum: float) -> None:
        momentum_update(self.key, self.query, momentum)

    def health(self) -> dict[str, float]:
        return self.store.health()

    def get_extra_state(self) -> list[dict[str, Any]]:
        """The stores' part of state_dict()."""
        return [store.state_dict() for store in self.stores()]

    def set_extra_state(self, state: list[dict[str, Any]]) -> None:
        """The stores' part of load_state_dict()."""
        for store, own in zip(self.stores(), state, strict=True):
            store.load_state_dict(own)
