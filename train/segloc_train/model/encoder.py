"""What the query and the key branch have in common: the encoder, its batch statistics, the momentum copy."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from segloc_train.data.data import View
from segloc_train.dist import World
from segloc_train.model.backbone import SDANet
from segloc_train.model.head import LevelBatchNorm

Item = TypeVar("Item")


class Encoder(nn.Module):
    """Backbone with attention, and a head: everything between a picture with a box and its embeddings.

    Attributes:
        low_precision: whether it computes in bfloat16 where that loses little; None: on CUDA alone.
    """

    low_precision: bool | None = None

    def __init__(self, arch: str, width: int, head: nn.Module) -> None:
        """`head` takes the five levels and the View."""
        super().__init__()
        self.backbone = SDANet(arch, width)
        self.head = head

    def forward(self, view: View) -> Any:
        """An augmented view of N pictures -> what the head makes of it, float32.

        Computes in channels_last.
        """
        images = view.images.contiguous(memory_format=torch.channels_last)
        enabled = images.is_cuda if self.low_precision is None else self.low_precision
        with torch.autocast("cuda" if images.is_cuda else "cpu", torch.bfloat16, enabled=enabled):
            return self.head(self.backbone(images), view)


def momentum_copy(query: nn.Module) -> nn.Module:
    """A copy of the whole module that takes no gradients."""
    return copy.deepcopy(query).requires_grad_(False)


@torch.no_grad()
def momentum_update(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """key <- momentum * key + (1 - momentum) * query, for every parameter.

    Buffers are left alone, as in MoCo: the key branch runs in training mode, so its BN normalises with the
    statistics of its own batch, and its running statistics are never read.
    """
    torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1 - momentum)


@torch.no_grad()
def averaged_statistics(module: nn.Module, groups: Iterable[Item], world: World) -> Iterator[Item]:
    """Hand the groups on, so that BN's running statistics move once a step, by the mean over all groups and ranks.

    Each group starts from the statistics before the step; what is kept is the mean of what the groups make of
    them. Updated one group after the other, they would depend on the number of ranks.
    """
    norms = [part for part in module.modules() if isinstance(part, _NormBase | LevelBatchNorm)]
    buffers = [x for norm in norms for x in norm.buffers(recurse=False)]
    statistics = [x for x in buffers if x.is_floating_point()]
    counters = [x for x in buffers if not x.is_floating_point()]
    before, updates = [x.clone() for x in statistics], [x + 1 for x in counters]
    total = [torch.zeros_like(x) for x in statistics]
    count = 0
    for group in groups:
        torch._foreach_copy_(statistics, before)
        yield group
        torch._foreach_add_(total, statistics)
        count += 1
    torch._foreach_copy_(statistics, torch._foreach_div(total, count))
    torch._foreach_copy_(counters, updates)
    world.mean_(statistics)
