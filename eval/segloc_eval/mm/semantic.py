"""Semantic segmentation: Panoptic FPN's semantic branch (arXiv 1901.02446), mmdet's own, on the attended pyramid."""

from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.structures import PixelData
from torch import Tensor


@MODELS.register_module(force=True)
class SemanticFPN(BaseDetector):  # type: ignore[misc]
    """Backbone and head of mmdet configs; a label per pixel: 0..C-1 are classes, C is background."""

    def __init__(self, backbone: Any, semantic_head: Any, data_preprocessor: Any = None) -> None:
        super().__init__(data_preprocessor=data_preprocessor)
        self.backbone = MODELS.build(backbone)
        self.semantic_head = MODELS.build(semantic_head)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """The five levels for images [N, 3, H, W] in 0..1."""
        levels: tuple[Tensor, ...] = self.backbone(batch_inputs)
        return levels

    def loss(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> dict[str, Tensor]:
        """Cross-entropy over all pixels of each sample's `gt_sem_seg.sem_seg`, int [1, H, W], at a quarter of H, W."""
        losses: dict[str, Tensor] = self.semantic_head.loss(self.extract_feat(batch_inputs), batch_data_samples)
        return losses

    def predict(self, batch_inputs: Tensor, batch_data_samples: list[Any]) -> list[Any]:
        """The samples with `pred_sem_seg.sem_seg`: uint8 or int64 [H, W] in the original picture's size."""
        metas = [sample.metainfo | {"batch_input_shape": batch_inputs.shape[-2:]} for sample in batch_data_samples]
        maps = self.semantic_head.predict(self.extract_feat(batch_inputs), metas, rescale=True)
        for sample, logits in zip(batch_data_samples, maps, strict=True):
            sample.pred_sem_seg = PixelData(sem_seg=logits.argmax(0, keepdim=True))
        return batch_data_samples

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list[Any] | None = None) -> Tensor:
        scores: Tensor = self.semantic_head(self.extract_feat(batch_inputs))["seg_preds"]
        return scores


def found_labels(sample: Any) -> Tensor:
    """int64 [H, W] on the CPU: the labels that `predict` put into a sample."""
    labels: Tensor = sample.pred_sem_seg.sem_seg[0].to("cpu", torch.int64)
    return labels
