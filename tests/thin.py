"""A ResNet-18 of a fortieth of the weights, for tests of what goes on around it: saved, sent and stepped in no time.

`python -m tests.thin segloc_train ...` is `python -m segloc_train ...` with it.
"""

import runpy
import sys
from typing import Any

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class Thin(ResNet):
    """One block a stage, of 8 to 64 channels."""

    def _make_layer(self, block: Any, planes: int, blocks: int, *rest: Any, **more: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 8, 1, *rest, **more)


def trunk(weights: None = None) -> ResNet:
    net = Thin(BasicBlock, [1] * 4)
    net.fc = nn.Linear(64, 1)
    return net


if __name__ == "__main__":
    torchvision.models.resnet18 = trunk
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
