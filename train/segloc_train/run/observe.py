"""What is watched while a run goes on: do the features become useful? The first rank does it alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segloc_train.config import Config
from segloc_train.data.augment import augment, plain
from segloc_train.data.data import Batch, Pairs
from segloc_train.data.loader import StoodIn
from segloc_train.data.order import derived_seed
from segloc_train.methods.common.method import Method
from segloc_train.methods.common.step import QUERY_VIEW
from segloc_train.run.feed import Feed
from segloc_train.run.runlog import RunLog
from segloc_train.run.watch import BANK, examples, knn_accuracy, query_features, some

LEAST_BANK = 256  # training pairs for the k-NN, of small sets; a tenth of larger ones, up to BANK
PICTURES = 10  # of a run, about
EXAMPLES = 8  # pairs in the picture of pairs
AMONG = 64  # pairs that are ranked together; fixed, so that sets of any size give comparable numbers


@torch.no_grad()
def held_out_accuracy(method: Method, feed: Feed, device: torch.device) -> Tensor | None:
    """float32 [levels] on the CPU: share of held-out pairs whose key ranks first; None if there is no rival.

    Pairs are ranked in groups of AMONG: a query's own key against the group's keys of all other classes. Both
    views are embedded by the query encoder in evaluation mode, without augmentation. The number depends on neither
    the momentum copy nor the queues, so runs with other settings, learning rate 0 included, are comparable.
    """
    shares, weights = [], []
    places = feed.split.held_out
    for start in range(0, len(places), AMONG):
        data = feed.held_out.batch(places[start : start + AMONG].tolist()).to(device)
        share = own_key_first(method.embed(plain(data.query)), method.embed(plain(data.key)), data.labels.to(device))
        if share is not None:
            shares.append(share)
            weights.append(float(len(data.labels)))
    if not shares:
        return None
    weight = torch.tensor(weights)
    return (torch.stack(shares) * weight[:, None]).sum(0) / weight.sum()


def own_key_first(queries: Tensor, keys: Tensor, labels: Tensor) -> Tensor | None:
    """Share [levels] of queries whose own key beats the keys of all other classes.

    queries, keys: float32 [N, levels, dim], unit norm; labels: int64 [N]. None where all N are of one class.
    """
    rival = labels[:, None] != labels
    has_rival = rival.any(1)
    if not has_rival.any():
        return None
    similarity = torch.einsum("nld,mld->lnm", queries, keys)
    own = similarity.diagonal(dim1=1, dim2=2)
    best = similarity.masked_fill(~rival, -torch.inf).amax(2)
    return (own > best)[:, has_rival].float().mean(1).cpu()


class Observer:
    """Looks at a run: the queues' health at each record, the features at each epoch's end, pictures now and then."""

    def __init__(self, feed: Feed, config: Config, records: RunLog, device: torch.device) -> None:
        self.feed, self.config, self.records, self.device = feed, config, records, device
        self.pictured = max(1, config.epochs // PICTURES)  # epochs between pictures
        self.stood_in = StoodIn()
        self.known = Pairs(feed.sources, stand_ins=feed.split.train)
        self.bank = some(feed.split.train, min(BANK, max(LEAST_BANK, len(feed.split.train) // 10)))

    def look(self, method: Method, record: dict[str, Any], epoch_end: bool) -> dict[str, float]:
        """More numbers for a record that holds `step` and `epoch`; every few epochs pictures beside it."""
        found = {f"queue_{name}": value for name, value in method.health().items()}
        if self.device.type == "cuda":
            found["gpu_memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        if not epoch_end:
            return found
        method.eval()
        accuracy = held_out_accuracy(method, self.feed, self.device)
        if accuracy is not None:
            found["held_out_accuracy"] = accuracy.mean().item()
            found |= {f"held_out_accuracy_p{level}": value for level, value in enumerate(accuracy.tolist(), 2)}
        backbone = method.query.backbone
        features, labels = query_features(
            backbone, self._read(self.feed.held_out, self.feed.split.held_out), self.device
        )
        knn = knn_accuracy(*query_features(backbone, self._read(self.known, self.bank), self.device), features, labels)
        if knn is not None:
            found["knn_accuracy"] = knn
        if record["epoch"] % self.pictured == 0 or record["epoch"] == self.config.epochs:
            names = [entry["name"] for entry in self.feed.sources.classes]
            self.records.embeddings(features, labels, names, record["epoch"], record["step"])
            self.records.picture("pairs", self._examples(names, record["step"]), record["step"])
        method.train()
        return found

    def _examples(self, names: list[str], step: int) -> Tensor:
        """Some training pairs as the network sees them, uint8 [3, H, W]."""
        batch = self.known.batch(self.bank[:EXAMPLES].tolist())
        draws = torch.Generator().manual_seed(derived_seed(self.config.seed, QUERY_VIEW, step))
        query, key = (augment(view, self.config.augment, draws, self.config.crop) for view in (batch.query, batch.key))
        return examples(query, key, batch.labels, names)

    def _read(self, pairs: Pairs, places: NDArray[np.int64]) -> Iterator[Batch]:
        """In this process, AMONG at a time; damaged pairs that others stand in for are named."""
        for start in range(0, len(places), AMONG):
            batch = pairs.batch(places[start : start + AMONG].tolist())
            self.stood_in.note(batch.problems)
            yield batch
