"""One queue of keys per class, kept exactly, at about the price of one queue.

The queue of class c is the last K keys whose class is another one. Nearly the same keys would be stored once
per class; here every key is stored once, in order of age, and forgotten as soon as no class's queue holds it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

NO_CLASS = -1  # class of the start keys: another one than every class


class KeyStore:
    """The last keys of a stream, on every level, with one queue per class.

    Among keys with 2K newer ones only a class that owns more than half of the newer keys can still need any,
    and it is the same class at every greater age; its queue holds at most K keys, and at most K keys of its
    own are still needed by others. So 2K keys always suffice, for every stream, however many classes; balanced
    classes need K * C / (C - 1). Keys nobody needs stay until the buffer is full (they are not visible).

    Starts with K random unit keys that belong to no class: negatives for everyone until newer keys replace
    them, as MoCo starts.

    Attributes:
        count: keys stored now; never above 2 * capacity + one batch.
    """

    def __init__(
        self,
        levels: int,
        classes: int,
        capacity: int,
        dim: int,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        """`capacity` is K >= 1, the length of every class's queue; `generator` (CPU) draws the start keys."""
        self.classes, self.capacity, self.count = classes, capacity, capacity
        start = F.normalize(torch.randn(levels, capacity, dim, generator=generator), dim=-1)
        self._keys = start.to(device)
        self._labels = torch.full((capacity,), NO_CLASS, device=device)

    @property
    def keys(self) -> Tensor:
        """float32 [levels, count, dim], oldest first."""
        return self._keys[:, : self.count]

    @property
    def labels(self) -> Tensor:
        """int64 [count], the class of each key, NO_CLASS for start keys; the same for all levels."""
        return self._labels[: self.count]

    def visible(self) -> Tensor:
        """bool [classes, count]: is the key in the queue of the class? Exactly K are, in every row."""
        classes = torch.arange(self.classes, device=self._labels.device)
        other = self.labels != classes[:, None]
        before = other.cumsum(1, dtype=torch.int32) - other.int()
        return other & (other.sum(1, keepdim=True) - before <= self.capacity)

    def bias(self) -> Tensor:
        """float32 [classes, count]: 0 where visible, else -inf; add a sample's row to its logits."""
        visible = self.visible()
        return torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor) -> None:
        """Append a batch: keys float32 [B, levels, dim], unit norm; labels int64 [B] in 0..classes-1 or NO_CLASS."""
        batch = len(labels)
        if self.count + batch > self._labels.numel():
            self._make_room(batch)
        rows = slice(self.count, self.count + batch)
        self._keys[:, rows] = keys.transpose(0, 1)
        self._labels[rows] = labels
        self.count += batch

    def _make_room(self, batch: int) -> None:
        """Forget the keys no class needs; grow the buffers, by an eighth of K at least, where that is not enough."""
        needed = self.visible().any(0).nonzero().squeeze(1)
        self.count = needed.numel()
        size = self._labels.numel()
        if self.count + batch + self.capacity // 16 > size:
            size = min(self.count + batch + self.capacity // 8, 2 * self.capacity + batch)
        kept_keys, kept_labels = self._keys[:, needed], self._labels[needed]
        if size != self._labels.numel():
            self._keys = self._keys.new_empty(len(self._keys), size, self._keys.shape[2])
            self._labels = self._labels.new_empty(size)
        self._keys[:, : self.count] = kept_keys
        self._labels[: self.count] = kept_labels

    def state_dict(self) -> dict[str, Tensor]:
        """The store as tensors, to be resumed exactly."""
        return {"keys": self.keys.clone(), "labels": self.labels.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a stored state; ValueError where levels or dim differ."""
        keys, labels = state["keys"], state["labels"]
        if keys.shape != (len(self._keys), len(labels), self._keys.shape[2]):
            raise ValueError(f"key store of shape {tuple(keys.shape)} does not fit")
        self._keys, self._labels = keys.to(self._keys.device), labels.to(self._labels.device)
        self.count = len(labels)
