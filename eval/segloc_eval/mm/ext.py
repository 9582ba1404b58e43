"""Stand-in for `mmcv._ext`: the operators a Cascade Mask R-CNN needs, run by torchvision's kernels.

Compiling mmcv takes most of an hour; torchvision ships the same NMS and RoIAlign for CPU and CUDA.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor

NAME = "mmcv._ext"
AVERAGE = 1  # mmcv's code for average pooling; 0 is max


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (int64, M <= N) of the boxes kept, by falling score.

    `bboxes` (N, 4) as x1, y1, x2, y2; a box goes when its IoU with a better one is above the threshold.
    `offset` 1 counts the last pixel in (width x2 - x1 + 1), 0 does not.
    mmcv sorts without regard to the order of ties and compares in float32, so the same is done here.
    """
    order = scores.sort(0, descending=True).indices
    boxes = bboxes[order]
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    threshold = torch.tensor(iou_threshold, dtype=torch.float32).item()
    return order[torchvision.ops.nms(boxes, scores[order], threshold)]


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill `output` (R, C, h, w) with RoIAlign of `input` (N, C, H, W) at `rois` (R, 5: image, x1, y1, x2, y2).

    NotImplementedError for max pooling, which torchvision does not have.
    """
    _average_only(pool_mode)
    size = (aligned_height, aligned_width)
    args = (size, spatial_scale, sampling_ratio, aligned)
    output.copy_(torchvision.ops.roi_align(input, rois, *args))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill `grad_input` (N, C, H, W) with the gradient of `roi_align_forward` for `grad_output` (R, C, h, w)."""
    _average_only(pool_mode)
    kernel: Callable[..., Tensor] = torch.ops.torchvision._roi_align_backward
    size = (aligned_height, aligned_width)
    tail = (*grad_input.shape, sampling_ratio, aligned)
    grad_input.copy_(kernel(grad_output, rois, spatial_scale, *size, *tail))


def _average_only(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise NotImplementedError("roi_align: max pooling needs mmcv's compiled operators")


class _Extension(ModuleType):
    """Any operator not defined here exists by name, as mmcv asks at import, and fails clearly when called."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> NoReturn:
            raise NotImplementedError(f"{name}: needs mmcv's compiled operators; this mmcv has none")

        return missing


def install() -> None:
    """Register the stand-in as `mmcv._ext`; do nothing where the compiled module (or the stand-in) exists."""
    if NAME in sys.modules or importlib.util.find_spec(NAME) is not None:
        return
    module = _Extension(NAME)
    module.__spec__ = ModuleSpec(NAME, None)
    for operator in (nms, roi_align_forward, roi_align_backward):
        setattr(module, operator.__name__, operator)
    sys.modules[NAME] = module
