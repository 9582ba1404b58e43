"""The detector: mmdet's Cascade R-CNN (Cascade Mask R-CNN where data have masks) on the SDANet of segloc_train."""

from pathlib import Path
from typing import Any

import mmdet.models  # noqa: F401  registers the parts of the detector
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch import nn

from segloc_train import start
from segloc_train.backbone import SDANet
from segloc_train.checkpoint import load_strict, load_tensors

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, RGB, 0..255
STRIDES = (4, 8, 16, 32, 64)
PUBLISHED_WIDTH, PUBLISHED_SIZE = 256, 512  # what mmdet's config of Cascade Mask R-CNN is made for
# mmdet's stage settings: IoU of a positive, spread of the box deltas, weight of the loss.
STAGES = ((0.5, 0.1, 1.0), (0.6, 0.05, 0.5), (0.7, 0.033, 0.25))
# Best detections kept per scan, so AR@100 is that of the best 50. COCO's 100 would double the time of testing where a
# detector is unsure (0.12 to 0.23 s a scan of 500 pixels on one core, masks included); scans hold a handful of objects.
DETECTIONS = 50

MMLogger.get_current_instance().setLevel("WARNING")  # it lists every initialised weight otherwise
init_default_scope("mmdet")
MODELS.register_module(name="SDANet", module=SDANet, force=True)


def detector_config(arch: str, width: int, classes: int, masks: bool, size: int) -> dict[str, Any]:
    """mmdet config of the detector, all parameters trained, batch norm with batch statistics.

    Width 256 gives the published heads (256 channels, 1024-d boxes); a narrower pyramid gets heads in proportion
    and fewer proposals, for CPUs. Anchors and the RoI's choice of level shrink with the picture (`size`, pixels of its
    longer side), so that they cover the same share of it as at 512.
    """
    slim = width < PUBLISHED_WIDTH
    scale = size / PUBLISHED_SIZE
    samples, proposals = (64, 200) if slim else (512, 1000)
    common = {"in_channels": width, "num_classes": classes}
    box_heads = [
        {
            **{"type": "Shared2FCBBoxHead", "fc_out_channels": 4 * width, "roi_feat_size": 7, **common},
            **{"reg_class_agnostic": True, "bbox_coder": _coder(spread, spread, 2 * spread, 2 * spread)},
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
            "loss_bbox": {"type": "SmoothL1Loss", "beta": 1.0, "loss_weight": 1.0},
        }
        for _, spread, _ in STAGES
    ]
    mask_parts = {
        "mask_roi_extractor": _extractor(14, width, scale),
        "mask_head": {
            **{"type": "FCNMaskHead", "num_convs": 2 if slim else 4, "conv_out_channels": width, **common},
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    }
    return {
        "type": "CascadeRCNN",
        "data_preprocessor": {"type": "DetDataPreprocessor", "mean": MEAN, "std": STD, "pad_mask": masks},
        "backbone": {"type": "SDANet", "arch": arch, "width": width},
        "rpn_head": {
            **{"type": "RPNHead", "in_channels": width, "feat_channels": width, "bbox_coder": _coder(1, 1, 1, 1)},
            "anchor_generator": {
                **{"type": "AnchorGenerator", "scales": [8 * scale], "ratios": [0.5, 1.0, 2.0]},
                "strides": list(STRIDES),
            },
            "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
            "loss_bbox": {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 1.0},
        },
        "roi_head": {
            "type": "CascadeRoIHead",
            "num_stages": len(STAGES),
            "stage_loss_weights": [weight for _, _, weight in STAGES],
            "bbox_roi_extractor": _extractor(7, width, scale),
            "bbox_head": box_heads,
            **(mask_parts if masks else {}),
        },
        "train_cfg": {
            "rpn": {
                "assigner": {**_assigner(0.7, 0.3, 0.3), "match_low_quality": True},
                "sampler": _sampler(128 if slim else 256, 0.5, False),
                **{"allowed_border": -1, "pos_weight": -1, "debug": False},
            },
            "rpn_proposal": _proposals(proposals),
            "rcnn": [
                {
                    "assigner": {**_assigner(iou, iou, iou), "match_low_quality": False},
                    "sampler": _sampler(samples, 0.25, True),
                    **{"mask_size": 28, "pos_weight": -1, "debug": False},
                }
                for iou, _, _ in STAGES
            ],
        },
        "test_cfg": {
            "rpn": _proposals(proposals // 2),
            "rcnn": {
                **{"score_thr": 0.01, "max_per_img": DETECTIONS, "mask_thr_binary": 0.5},
                "nms": {"type": "nms", "iou_threshold": 0.5},
            },
        },
    }


def build_detector(arch: str, width: int, classes: int, masks: bool, size: int, seed: int) -> nn.Module:
    """The detector at random, every weight a function of `seed` alone (heads equal whatever backbone is loaded)."""
    set_random_seed(seed)
    detector: Any = MODELS.build(ConfigDict(detector_config(arch, width, classes, masks, size)))
    detector.init_weights()
    built: nn.Module = detector
    return built


def load_backbone(detector: nn.Module, source: Path) -> None:
    """Put a pretrained SDANet (`backbone.pth` or `.safetensors`, tensors only) into `detector`, strictly.

    click.ClickException when the file is no such file, or a key or shape does not match. Nothing is unpickled.
    """
    backbone = detector.backbone
    assert isinstance(backbone, SDANet)
    load_strict(backbone, load_tensors(source), str(source))


def load_imagenet(detector: nn.Module, arch: str) -> None:
    """Put torchvision's ImageNet weights into the ResNet of the backbone, as segloc_train.start does."""
    backbone = detector.backbone
    assert isinstance(backbone, SDANet)
    start.load_imagenet(backbone, arch)


def _coder(*spread: float) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": list(spread)}


def _extractor(side: int, width: int, scale: float) -> dict[str, Any]:
    return {
        **{"type": "SingleRoIExtractor", "out_channels": width, "featmap_strides": list(STRIDES[:4])},
        "roi_layer": {"type": "RoIAlign", "output_size": side, "sampling_ratio": 2},
        "finest_scale": 56 * scale,
    }


def _assigner(positive: float, negative: float, least: float) -> dict[str, Any]:
    return {
        **{"type": "MaxIoUAssigner", "pos_iou_thr": positive, "neg_iou_thr": negative},
        **{"min_pos_iou": least, "ignore_iof_thr": -1},
    }


def _sampler(number: int, positive: float, add_truth: bool) -> dict[str, Any]:
    return {
        **{"type": "RandomSampler", "num": number, "pos_fraction": positive, "neg_pos_ub": -1},
        "add_gt_as_proposals": add_truth,
    }


def _proposals(number: int) -> dict[str, Any]:
    return {
        **{"nms_pre": number, "max_per_img": number, "min_bbox_size": 0},
        "nms": {"type": "nms", "iou_threshold": 0.7},
    }
