"""What the query and the key branch have in common: the encoder, statistics in groups, the momentum copy."""

import copy

import torch
from torch import Tensor, nn

from segloc_train.backbone import SDANet
from segloc_train.head import RoiHead


class Encoder(nn.Module):
    """Backbone, attention and head: everything between an image with a box and its embeddings."""

    def __init__(self, arch: str, width: int) -> None:
        super().__init__()
        self.backbone = SDANet(arch, width)
        self.head = RoiHead(width)

    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Normalised images float32 [N, 3, S, S], boxes float32 [N, 4] (x1, y1, x2, y2) -> [N, 5, dim], unit norm.

        Computes in channels_last, and in bfloat16 on CUDA; embeddings are float32 everywhere.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16, enabled=images.is_cuda):
            return self.head(self.backbone(images), boxes)


def momentum_copy(query: Encoder) -> Encoder:
    """A copy of the whole encoder that takes no gradients."""
    return copy.deepcopy(query).requires_grad_(False)


@torch.no_grad()
def momentum_update(key: nn.Module, query: nn.Module, momentum: float) -> None:
    """key <- momentum * key + (1 - momentum) * query, for every parameter.

    Buffers are left alone, as in MoCo: the key branch runs in training mode, so its BN normalises with the
    statistics of its own batch, and its running statistics are never read.
    """
    torch._foreach_lerp_(list(key.parameters()), list(query.parameters()), 1 - momentum)


@torch.no_grad()
def embed_shuffled(encoder: Encoder, images: Tensor, boxes: Tensor, group: int, permutation: Tensor) -> Tensor:
    """Embeddings [B, 5, dim] in the given order, computed in groups of a permuted batch.

    Batch statistics mark all samples of a group alike. Were a key's group the same as its query's, the mark
    would give the positive away (MoCo, arXiv 1911.05722, section 3.3); with the groups drawn anew it tells
    nothing. `permutation` is int64 [B]; B must be a multiple of `group`.
    """
    out = [encoder(images[rows], boxes[rows]) for rows in permutation.split(group)]
    return torch.cat(out)[permutation.argsort()]
