"""One queue of keys per class, kept exactly, at about the price of one queue.

The queue of class c is the last K keys whose class is another one. Nearly the same keys would be stored once
per class; here every key is stored once, and its slot is used anew as soon as no queue holds it.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

NO_CLASS = -1  # class of the start keys: another one than every class
EVERYONE = -2  # stands for the class in the row of the plain FIFO: no key is of it
GROWTH = 64  # the buffer grows by capacity / GROWTH slots


class KeyStore:
    """The last keys of a stream, on every level, with one queue per class and one of all keys, a plain FIFO.

    Starts with K random unit keys that belong to no class: negatives for everyone until newer keys replace
    them, as MoCo starts.

    **2K slots suffice**, for every stream, however many classes. The FIFO is the queue of one more class, which
    has no keys. A key x with n newer ones is in the queue of c when it is not of class c and fewer than K newer
    keys are of other classes than c. If n >= 2K, class c owns more than n - K >= n / 2 of the newer keys: that
    can be one class only, the same one for every older key as well. Without such a key at most 2K are stored.
    With one, the queue of its c holds every stored key that is not of class c (those older than 2K have no other
    queue, the younger ones are younger than x), so these are at most K; and a stored key of c is in the queue of
    another class, for which all keys of c count, so fewer than K newer ones are of c: at most K again. Slots are
    freed before new keys come in, so a batch needs no room beside them. Balanced classes need K * C / (C - 1).

    Classes and ages are kept on the host, where labels come from, and decide which slots are free: enqueueing
    never waits for the device, which gets one small list of slots a batch. Growing copies the buffer once (both
    copies are then alive); it happens a few times until the store has its size.

    Attributes:
        keys: float32 [levels, slots, dim], a buffer in no order; slots nobody sees hold stale finite numbers.
        visible: bool [classes, slots], is the key in the queue of the class? Exactly K are, in every row.
        recent: bool [slots], the last K keys whatever their class.
        slot_labels: int64 [slots], the class of each key, NO_CLASS for start keys.
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
        """`capacity` is K >= 1, the length of every queue; `generator` (CPU) draws the start keys.

        With `classes` 0 there is the plain FIFO alone, in exactly K slots; keys may be of any class then.
        """
        self.classes, self.capacity = classes, capacity
        start = F.normalize(torch.randn(levels, capacity, dim, generator=generator), dim=-1)
        self._restore(start.to(device), np.full(capacity, NO_CLASS), np.arange(capacity))

    @property
    def slots(self) -> int:
        """Slots allocated now, never above 2K."""
        return self.keys.shape[1]

    @property
    def visible(self) -> Tensor:
        return self._table[:-1]

    @property
    def recent(self) -> Tensor:
        return self._table[-1]

    @torch.no_grad()
    def enqueue(self, keys: Tensor, labels: Tensor) -> Tensor:
        """Add a batch, oldest first; returns the slots of the keys that a queue took, in order, int64 on the device.

        Keys [B, levels, dim], unit norm, on the store's device; labels int64 [B] on the CPU, 0..classes-1 or NO_CLASS
        (with classes 0 any). Of a batch larger than a queue, the queue gets the last K fitting keys; else it takes all.
        ValueError where the labels are elsewhere or others, or the shapes differ.
        """
        levels, _, dim = self.keys.shape
        if labels.device.type != "cpu" or keys.shape != (len(labels), levels, dim):
            raise ValueError(f"keys {tuple(keys.shape)} with {len(labels)} labels on {labels.device} do not fit")
        new = labels.numpy().astype(np.int64)
        if len(new) and (new.min() < NO_CLASS or (self.classes and new.max() >= self.classes)):
            raise ValueError(f"labels from {new.min()} to {new.max()}: there are {self.classes} classes")

        enters = self._row_classes[:, None] != new
        later = enters[:, ::-1].cumsum(1)[:, ::-1]  # how many enter from here on
        enters &= later <= self.capacity
        rows, items = enters.nonzero()
        nth = enters.cumsum(1) - 1
        places = (self._heads[rows] + nth[rows, items]) % self.capacity
        self._heads += enters.sum(1)
        self._heads %= self.capacity

        hidden = self._queues[rows, places]
        self._needed -= np.bincount(hidden, minlength=self.slots)
        stored = enters.any(0).nonzero()[0]
        slot = np.empty(len(new), np.int64)
        slot[stored] = taken = self._free(len(stored))  # may grow the buffer
        self._queues[rows, places] = shown = slot[items]
        self._needed += np.bincount(shown, minlength=self.slots)
        self._labels[taken] = new[stored]
        self._ages[taken] = self._next + stored
        self._next += len(new)

        lists = (hidden + rows * self.slots, shown + rows * self.slots, taken, stored, new[stored])
        sent = self._send(np.concatenate(lists)).split([len(part) for part in lists])
        table = self._table.view(-1)
        table.index_fill_(0, sent[0], False)
        table.index_fill_(0, sent[1], True)
        self.keys.index_copy_(1, sent[2], keys.to(self.keys.dtype).transpose(0, 1).index_select(1, sent[3]))
        self.slot_labels.index_copy_(0, sent[2], sent[4])
        return sent[2]

    def health(self) -> dict[str, float]:
        """How the queues fare.

        share_C: share of class C among the stored keys. negatives_C: real keys (no start keys) that a query of class C
        meets; negatives: those of the one queue where there are no classes. oldest: age in samples of the oldest key
        in any queue. start_keys: how many are left. slots: slots allocated / K. effective_dim: along how many
        directions the last K keys of P2 spread, (trace of their covariance)^2 / sum of its squares; near 1 they lie on
        a line, and nothing more is learnt (dimensional collapse, arXiv 2110.09348). collisions, only where there are
        classes: keys of its own class that a query may see, counted on the device in what the loss masks by; anything
        but 0 is a bug.
        """
        stored = self._needed > 0
        counts = np.bincount(self._labels[stored & (self._labels >= 0)], minlength=self.classes)
        real = (self._ages[self._queues] >= self.capacity).sum(1)
        found = {f"share_{c}": float(counts[c] / stored.sum()) for c in range(len(counts))}
        found |= {f"negatives_{c}": float(real[c]) for c in range(self.classes)} or {"negatives": float(real[-1])}
        if self.classes:
            classes = torch.arange(self.classes, device=self.slot_labels.device)
            own = self.visible & (self.slot_labels == classes[:, None])
            found["collisions"] = float(own.sum())
        weight = self.recent[:, None].to(self.keys.dtype)
        spread = (self.keys[0] - (self.keys[0] * weight).sum(0) / weight.sum()) * weight
        covariance = spread.T @ spread
        found["effective_dim"] = float(covariance.trace() ** 2 / covariance.square().sum().clamp_min(1e-30))
        return found | {
            "oldest": float(self._next - self._ages[stored].min()),
            "start_keys": float((stored & (self._ages < self.capacity)).sum()),
            "slots": self.slots / self.capacity,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The store as tensors, slot by slot: a resumed run sums in the same order."""
        ages = np.where(self._needed > 0, self._ages, -1)
        return {
            "keys": self.keys.clone(),
            "labels": torch.from_numpy(self._labels.copy()),
            "ages": torch.from_numpy(ages),  # position in the stream, the start keys first; -1: free
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a stored state; ValueError where levels or dim differ or it holds no K keys for every class."""
        keys, labels, ages = state["keys"], state["labels"].cpu().numpy(), state["ages"].cpu().numpy()
        levels, slots, dim = keys.shape
        if (levels, dim) != (self.keys.shape[0], self.keys.shape[2]) or not len(labels) == len(ages) == slots:
            raise ValueError(f"key store of shape {tuple(keys.shape)} does not fit")
        self._restore(keys.to(self.keys.device, copy=True), labels.astype(np.int64), ages.astype(np.int64))

    def _restore(self, keys: Tensor, labels: np.ndarray, ages: np.ndarray) -> None:
        """Everything follows from the slots' keys, classes and ages (-1: free)."""
        row_classes = np.array([*range(self.classes), EVERYONE])
        order = ages.argsort(kind="stable")
        order = order[ages[order] >= 0]
        queues = [order[labels[order] != c][-self.capacity :] for c in row_classes]
        if min(map(len, queues)) < self.capacity:
            raise ValueError(f"key store without {self.capacity} keys for every class")
        self.keys, self._labels, self._ages = keys, labels, ages
        self._needed: np.ndarray = np.bincount(np.ravel(queues), minlength=len(labels))  # in how many queues it is
        self._row_classes, self._queues = row_classes, np.stack(queues).astype(np.int32)  # slots, a ring for each class
        self._heads: np.ndarray = np.zeros(len(queues), np.int64)  # place of the oldest in each ring
        self._next: int = int(ages.max()) + 1  # place in the stream
        table = np.zeros((len(queues), len(labels)), bool)
        table[np.arange(len(queues))[:, None], self._queues] = True
        self._table: Tensor = torch.from_numpy(table).to(keys.device)
        self.slot_labels: Tensor = torch.from_numpy(labels.copy()).to(keys.device)

    def _free(self, count: int) -> np.ndarray:
        """The first `count` free slots: a function of the state, so that a resumed run takes the same ones."""
        free = np.flatnonzero(self._needed == 0)
        if count > len(free):
            step = -(-self.capacity // GROWTH)
            more = -(-(count - len(free)) // step) * step
            more = min(more, 2 * self.capacity - self.slots)
            self.keys = F.pad(self.keys, (0, 0, 0, more))
            self._table = F.pad(self._table, (0, more))
            self.slot_labels = F.pad(self.slot_labels, (0, more), value=NO_CLASS)
            self._labels = np.pad(self._labels, (0, more), constant_values=NO_CLASS)
            self._ages = np.pad(self._ages, (0, more), constant_values=-1)
            self._needed = np.pad(self._needed, (0, more))
            free = np.flatnonzero(self._needed == 0)
        return free[:count]

    def _send(self, numbers: np.ndarray) -> Tensor:
        """int64 list on the device, without waiting for it."""
        host = torch.from_numpy(numbers)
        return host if self.keys.device.type == "cpu" else host.pin_memory().to(self.keys.device, non_blocking=True)
