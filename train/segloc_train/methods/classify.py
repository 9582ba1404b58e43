"""Plain supervision on the same segments: cross-entropy on the class of the pasted object, at every level.

The fair baseline of the others, which use the labels too, or could: what a detector's box head learns, and no
published method of pretraining. The head is that of the others, but that its last layer gives class scores, of
hidden numbers that nothing normalises. Pairs are shown by their query's picture at even steps and by their key's at
odd ones, so that it learns from all pictures the others see; there is no key branch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from segloc_train.data.data import View
from segloc_train.methods.common import method
from segloc_train.methods.common.method import Settings, Terms
from segloc_train.methods.common.step import Step
from segloc_train.model.backbone import LEVELS
from segloc_train.model.encoder import Encoder
from segloc_train.model.head import RoiHead, cells


class ClassHead(RoiHead):
    """RoiHead with as many outputs as there are classes; scores are no embeddings, so nothing is done to them."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        del self.standardise

    def forward(self, levels: Sequence[Tensor], view: View) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Scores float32 [N, 5, classes], and the last hidden layer as unit vectors [N, 5, 4 * width]."""
        convolved = self.convolved(cells(levels, view.boxes))
        hidden = torch.stack([self.embed[:-1](x) for x in convolved], 1)
        return self.embed[-1](hidden).float(), F.normalize(hidden.float(), dim=-1)


class Method(method.Method):
    """An encoder alone."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        encoder = Encoder(settings.arch, settings.width, ClassHead(settings.width, settings.classes))
        self.query = encoder.to(settings.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, view: View) -> Tensor:
        return self.query(view)[1]

    def losses(self, step: Step) -> Iterator[Terms]:
        if step.number % 2:
            step = replace(step, batch=step.batch._replace(query=step.batch.key))
        for group in step.groups(self.query):
            scores, _ = self.query(group.view)
            each = group.labels[:, None].expand(-1, LEVELS)
            loss = F.cross_entropy(scores.transpose(1, 2), each, reduction="none")
            yield Terms.of(loss, scores.argmax(-1) == each, step)
