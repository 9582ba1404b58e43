"""How well the query network finds a held-out pair's own key: a number that runs can be compared by."""

from collections.abc import Sequence

import torch
from torch import Tensor

from segloc_train.augment import plain
from segloc_train.data import Pairs
from segloc_train.encoder import Encoder

AMONG = 64  # pairs that are ranked together; fixed, so that sets of any size give comparable numbers


@torch.no_grad()
def held_out_accuracy(encoder: Encoder, pairs: Pairs, places: Sequence[int], device: torch.device) -> Tensor | None:
    """float32 [levels] on the CPU: share of held-out pairs whose key ranks first; None if there is no rival.

    Pairs are ranked in groups of AMONG: a query's own key against the group's keys of all other classes. Both
    views are embedded by `encoder` in evaluation mode, without augmentation. The number depends on neither the
    momentum copy nor the queues, so runs with other settings, learning rate 0 included, are comparable.
    """
    encoder.eval()
    shares, weights = [], []
    for start in range(0, len(places), AMONG):
        data = pairs.batch(list(places[start : start + AMONG])).to(device)
        share = own_key_first(encoder(*plain(data.query)), encoder(*plain(data.key)), data.labels)
        if share is not None:
            shares.append(share)
            weights.append(float(len(data.labels)))
    encoder.train()
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
