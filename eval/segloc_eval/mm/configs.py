"""The detectors as mmdet configs: heads and settings are mmdet's, the backbone is the SDANet of segloc_train.

All weights are trained. Slim heads are in proportion to a narrow pyramid. Anchors and the choice of a region's level
shrink with the picture, so that they cover the same share of it as at the published size.
"""

from typing import Any

from segloc_eval.recipe import DetectorName, Recipe

# The backbone takes RGB in 0..1 and normalises by what its weights want.
NO_MEAN, UNIT = (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)
STRIDES = (4, 8, 16, 32, 64)
PUBLISHED_SIZE = 500  # pixels of the longer side at which mmdet's anchors and levels are used as they are
# Cascade R-CNN's stages: IoU of a positive, spread of the box deltas, weight of the loss.
STAGES = ((0.5, 0.1, 1.0), (0.6, 0.05, 0.5), (0.7, 0.033, 0.25))
# Weight of an object's pixel where training is short: objects cover a hundredth or two of a scan, and with equal
# weights 150 steps on PhantomRay ended at background everywhere. Full training has equal weights, as published.
OBJECT_PIXEL = 40.0
SPREAD = 0.1  # of the box deltas where there is one stage


def detector_config(recipe: Recipe, detector: DetectorName, classes: int) -> dict[str, Any]:
    """mmdet config of a detector for `classes` classes."""
    common = {
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": NO_MEAN,
            "std": UNIT,
            "pad_mask": "mask" in detector,
        },
        "backbone": {"type": "SDANet", "arch": recipe.arch, "width": recipe.width},
    }
    if detector == "semantic-fpn":
        return {"type": "SemanticFPN", **common, "semantic_head": _semantic_head(recipe, classes)}
    cascade = detector.startswith("cascade")
    return {
        "type": "CascadeRCNN" if cascade else "MaskRCNN" if detector == "mask-rcnn" else "FasterRCNN",
        **common,
        "rpn_head": _rpn_head(recipe, cascade),
        "roi_head": (_cascade_head if cascade else _single_head)(recipe, classes, "mask" in detector),
        "train_cfg": {
            "rpn": {
                "assigner": {**_assigner(0.7, 0.3, 0.3), "match_low_quality": True},
                "sampler": _sampler(128 if recipe.slim else 256, 0.5, False),
                **{"allowed_border": -1, "pos_weight": -1, "debug": False},
            },
            "rpn_proposal": _proposals(recipe.proposals),
            "rcnn": [_training(recipe, iou, False) for iou, _, _ in STAGES]
            if cascade
            else _training(recipe, 0.5, detector == "mask-rcnn"),
        },
        "test_cfg": {
            "rpn": _proposals(recipe.proposals // 2),
            "rcnn": {
                **{"score_thr": recipe.threshold, "max_per_img": recipe.detections, "mask_thr_binary": 0.5},
                "nms": {"type": "nms", "iou_threshold": 0.5},
            },
        },
    }


def _scale(recipe: Recipe) -> float:
    return recipe.size / PUBLISHED_SIZE


def _rpn_head(recipe: Recipe, cascade: bool) -> dict[str, Any]:
    smooth = {"type": "SmoothL1Loss", "beta": 1 / 9, "loss_weight": 1.0}
    return {
        **{"type": "RPNHead", "in_channels": recipe.width, "feat_channels": recipe.width},
        "bbox_coder": _coder(1, 1, 1, 1),
        "anchor_generator": {
            **{"type": "AnchorGenerator", "scales": [8 * _scale(recipe)], "ratios": [0.5, 1.0, 2.0]},
            "strides": list(STRIDES),
        },
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": True, "loss_weight": 1.0},
        "loss_bbox": smooth if cascade else {"type": "L1Loss", "loss_weight": 1.0},
    }


def _cascade_head(recipe: Recipe, classes: int, masks: bool) -> dict[str, Any]:
    smooth = {"type": "SmoothL1Loss", "beta": 1.0, "loss_weight": 1.0}
    return {
        **{"type": "CascadeRoIHead", "num_stages": len(STAGES)},
        "stage_loss_weights": [weight for _, _, weight in STAGES],
        "bbox_roi_extractor": _extractor(7, recipe),
        "bbox_head": [_box_head(recipe, classes, spread, True, smooth) for _, spread, _ in STAGES],
        **(_mask_parts(recipe, classes) if masks else {}),
    }


def _single_head(recipe: Recipe, classes: int, masks: bool) -> dict[str, Any]:
    return {
        **{"type": "StandardRoIHead", "bbox_roi_extractor": _extractor(7, recipe)},
        "bbox_head": _box_head(recipe, classes, SPREAD, recipe.agnostic, {"type": "L1Loss", "loss_weight": 1.0}),
        **(_mask_parts(recipe, classes) if masks else {}),
    }


def _box_head(recipe: Recipe, classes: int, spread: float, agnostic: bool, loss: dict[str, Any]) -> dict[str, Any]:
    return {
        **{"type": "Shared2FCBBoxHead", "in_channels": recipe.width, "num_classes": classes, "roi_feat_size": 7},
        **{"fc_out_channels": 4 * recipe.width, "reg_class_agnostic": agnostic},
        "bbox_coder": _coder(spread, spread, 2 * spread, 2 * spread),
        "loss_cls": {"type": "CrossEntropyLoss", "use_sigmoid": False, "loss_weight": 1.0},
        "loss_bbox": loss,
    }


def _mask_parts(recipe: Recipe, classes: int) -> dict[str, Any]:
    return {
        "mask_roi_extractor": _extractor(14, recipe),
        "mask_head": {
            **{"type": "FCNMaskHead", "in_channels": recipe.width, "conv_out_channels": recipe.width},
            **{"num_convs": 2 if recipe.slim else 4, "num_classes": classes, "class_agnostic": recipe.slim},
            "loss_mask": {"type": "CrossEntropyLoss", "use_mask": True, "loss_weight": 1.0},
        },
    }


def _semantic_head(recipe: Recipe, classes: int) -> dict[str, Any]:
    """Panoptic FPN's branch (arXiv 1901.02446), its last channel being the background."""
    inner = 64 if recipe.slim else 128
    return {
        **{"type": "PanopticFPNHead", "num_things_classes": 0, "num_stuff_classes": classes},
        **{"in_channels": recipe.width, "inner_channels": inner},
        "norm_cfg": {"type": "GN", "num_groups": inner // 4, "requires_grad": True},
        "loss_seg": {
            **{"type": "CrossEntropyLoss", "avg_non_ignore": True, "loss_weight": 1.0},
            "class_weight": [OBJECT_PIXEL if recipe.slim else 1.0] * classes + [1.0],
        },
    }


def _training(recipe: Recipe, iou: float, low_quality: bool) -> dict[str, Any]:
    return {
        "assigner": {**_assigner(iou, iou, iou), "match_low_quality": low_quality},
        "sampler": _sampler(64 if recipe.slim else 512, 0.25, True),
        **{"mask_size": 28, "pos_weight": -1, "debug": False},
    }


def _coder(*spread: float) -> dict[str, Any]:
    return {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": list(spread)}


def _extractor(side: int, recipe: Recipe) -> dict[str, Any]:
    return {
        **{"type": "SingleRoIExtractor", "out_channels": recipe.width, "featmap_strides": list(STRIDES[:4])},
        "roi_layer": {"type": "RoIAlign", "output_size": side, "sampling_ratio": recipe.roi_samples},
        "finest_scale": 56 * _scale(recipe),
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
