"""A fine-tuned detector as one ONNX graph: a resized picture in, detections in the scan's own pixels out.

What mmdet does in testing, written with tensors alone, by the detector's own layers: mmdet's code asks for numbers on
the way, which no graph can hold.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms, roi_align

from segloc_eval.mm.data import WHITE, canvas_side
from segloc_eval.mm.model import load_detector
from segloc_eval.mm.semantic import SemanticFPN
from segloc_synth.files import atomic_write

OPSET = 18  # the least with all that is needed
INPUTS = ("canvas", "shape", "size")
DETECTED, LABELLED = ("boxes", "scores", "labels", "masks"), ("labels",)


def write_onnx(weights: Path, file: Path) -> None:
    """Write the detector of `weights`, a detector.pth or its folder, as one file that onnxruntime runs alone.

    Inputs and outputs are those of Detection or Semantics. The file's metadata tell `classes` (a JSON list of id and
    name, in the labels' order), `size` (pixels of a resized scan's longer side) and `side` (of the canvas).

    click.ClickException as in load_detector, where onnx is not installed, and where the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed; pip install 'segloc[onnx]'") from None
    detector, about = load_detector(weights)
    size = about.recipe.size
    side = canvas_side(size)
    semantic = isinstance(detector, SemanticFPN)
    graph = (Semantics(detector) if semantic else Detection(detector, side)).eval()
    example = torch.zeros(side, side, 3, dtype=torch.uint8), torch.tensor([size, size]), torch.tensor([side, side])
    outputs = LABELLED if semantic else DETECTED if detector.with_mask else DETECTED[:3]  # type: ignore[union-attr]
    names: dict[str, Any] = {"input_names": INPUTS, "output_names": outputs}
    with atomic_write(file) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of ways of its own
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program: Any = torch.onnx.export(graph, example, dynamo=True, opset_version=OPSET, verbose=False, **names)
        classes = [{"id": id, "name": name} for id, name in about.classes.items()]
        program.model.metadata_props.update(classes=json.dumps(classes), size=str(size), side=str(side))
        opened.write(program.model_proto.SerializeToString())


class Detection(nn.Module):
    """A detector of build_detector in evaluation, one scan on a canvas of `side` pixels at a time."""

    def __init__(self, detector: Any, side: int) -> None:
        super().__init__()
        self.detector = detector.eval()
        with torch.no_grad():
            shapes = [x.shape[-2:] for x in detector.backbone(torch.zeros(1, 3, side, side))]
        for level, anchors in enumerate(detector.rpn_head.prior_generator.grid_priors(shapes, device="cpu")):
            self.register_buffer(f"anchors{level}", anchors)

    def forward(self, canvas: Tensor, shape: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Objects by falling score.

        Args:
            canvas: uint8 [S, S, 3], RGB: the scan, resized so that its longer side has the detector's size, in the
                upper left corner of white.
            shape: int64 [2], height and width of the resized scan.
            size: int64 [2], height and width of the scan itself.

        Returns:
            boxes float32 [N, 4] (x1, y1, x2, y2 in the scan's pixels), scores float32 [N], labels int64 [N] (places in
            the list of classes), and with a mask head masks bool [N, height, width].
        """
        edge = shape.flip(0).float().repeat(2)  # x, y, x, y
        scale = edge / size.flip(0).float().repeat(2)
        levels = self.detector.backbone(_pictures(canvas))
        rois = self.regions(levels, edge)
        head = self.detector.roi_head
        logits = []
        *earlier, (extractor, last) = zip(_stages(head.bbox_roi_extractor), _stages(head.bbox_head), strict=True)
        for before, own in earlier:
            scores, deltas = own(_cells(before, levels, rois))
            logits.append(scores)
            rois = _clipped(own.bbox_coder.decode(rois, deltas), edge)
        scores, deltas = last(_cells(extractor, levels, rois))
        logits.append(scores)
        classes = 1 if last.reg_class_agnostic else last.num_classes
        boxes = last.bbox_coder.decode(rois.repeat_interleave(classes, 0), deltas.view(-1, 4))
        boxes = _clipped(boxes, edge).view(-1, classes, 4) / scale
        mean = torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]
        boxes, scores, labels = self.best(boxes, mean.softmax(-1)[:, :-1])
        if not self.detector.with_mask:
            return boxes, scores, labels
        return boxes, scores, labels, self.masks(levels, boxes, labels, scale, size)

    def regions(self, levels: tuple[Tensor, ...], edge: Tensor) -> Tensor:
        """What the first stage proposes, float [R, 4] in the canvas' pixels."""
        rpn, cfg = self.detector.rpn_head, self.detector.test_cfg.rpn
        found, scores, places = [], [], []
        for level, (logits, deltas) in enumerate(zip(*rpn(levels), strict=True)):
            score = logits[0].permute(1, 2, 0).reshape(-1).sigmoid()
            delta = deltas[0].permute(1, 2, 0).reshape(-1, 4)
            anchors = getattr(self, f"anchors{level}")
            score, best = score.topk(min(cfg.nms_pre, len(anchors)))
            found.append(_clipped(rpn.bbox_coder.decode(anchors[best], delta[best]), edge))
            scores.append(score)
            places.append(torch.full_like(score, level))
        boxes, score, place = torch.cat(found), torch.cat(scores), torch.cat(places)
        sides = boxes[:, 2:] - boxes[:, :2]
        score = torch.where((sides > 0).all(1), score, -1.0)  # without area: behind all others
        kept = _suppressed(boxes, score, place, cfg.nms.iou_threshold)[: cfg.max_per_img]
        return boxes[kept][score[kept] >= 0]

    def best(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes [R, C or 1, 4] and scores [R, C] -> those of enough score that no better one of their class covers."""
        cfg = self.detector.test_cfg.rcnn
        rows, labels = (scores > cfg.score_thr).nonzero().unbind(1)
        score = scores[rows, labels]
        box = boxes[rows, labels if boxes.shape[1] > 1 else torch.zeros_like(labels)]
        kept = _suppressed(box, score, labels.float(), cfg.nms.iou_threshold)[: cfg.max_per_img]
        return box[kept], score[kept], labels[kept]

    def masks(self, levels: tuple[Tensor, ...], boxes: Tensor, labels: Tensor, scale: Tensor, size: Tensor) -> Tensor:
        """bool [N, height, width]."""
        head, cfg = self.detector.roi_head, self.detector.test_cfg.rcnn
        stages = zip(_stages(head.mask_roi_extractor), heads := _stages(head.mask_head), strict=True)
        share = torch.stack([own(_cells(extractor, levels, boxes * scale)).sigmoid() for extractor, own in stages])
        share = share.mean(0)
        place = torch.zeros_like(labels) if heads[-1].class_agnostic else labels
        share = share[torch.arange(labels.shape[0], device=labels.device), place][:, None]
        x, y = (
            (_middles(side) - boxes[:, i, None]) / (boxes[:, i + 2] - boxes[:, i])[:, None] * 2 - 1
            for i, side in ((0, size[1]), (1, size[0]))
        )
        return F.grid_sample(share, _grid(x, y), align_corners=False)[:, 0] >= cfg.mask_thr_binary


class Semantics(nn.Module):
    """A SemanticFPN in evaluation, one scan at a time."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector.eval()

    def forward(self, canvas: Tensor, shape: Tensor, size: Tensor) -> Tensor:
        """As Detection.forward takes them -> int64 [height, width]: each pixel's label, len(classes) for background.

        Scores are resized from the canvas, as mmdet does, without what lies outside the scan.
        """
        side = canvas.shape[0]
        logits = self.detector(_pictures(canvas))
        logits = F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
        x, y = (
            # Where the pixels of the scan lie on the canvas, in -1..1; not beyond the middles of the outermost ones.
            ((_middles(size[i]) * shape[i] / size[i]).clamp(min=0.5).minimum(shape[i] - 0.5) * 2 / side - 1)[None]
            for i in (1, 0)
        )
        return F.grid_sample(logits, _grid(x, y), align_corners=False)[0].argmax(0)


def _stages(part: Any) -> list[Any]:
    """A part of a RoI head for each stage: a cascade has several."""
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _pictures(canvas: Tensor) -> Tensor:
    """uint8 [S, S, 3] -> float [1, 3, S, S] in 0..1; contiguous, as torch.export guesses strides wrongly else."""
    return canvas.permute(2, 0, 1)[None].clone(memory_format=torch.contiguous_format).float() / WHITE


def _middles(side: Any) -> Tensor:
    """Coordinates of the middles of so many pixels (an int64 tensor []), float [side]."""
    return torch.arange(side, device=side.device) + 0.5


def _grid(x: Tensor, y: Tensor) -> Tensor:
    """x [N, W] and y [N, H] -> [N, H, W, 2], as grid_sample takes them."""
    return torch.stack([x[:, None].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])], 3)


def _clipped(boxes: Tensor, edge: Tensor) -> Tensor:
    """Boxes [N, 4] inside a picture of width, height, width, height `edge`."""
    return torch.minimum(boxes.clamp(min=0), edge)


def _suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Places of the boxes kept, by falling score; boxes of different `groups` leave each other alone, as in mmcv."""
    apart = groups.to(boxes)[:, None] * (boxes.max() + 1)
    return nms(boxes + apart, scores, threshold)


def _cells(extractor: Any, levels: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
    """RoIAlign [N, C, n, n] of each box on the level that its size belongs to."""
    layers = extractor.roi_layers
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    level = (area.sqrt() / extractor.finest_scale + 1e-6).log2().floor().clamp(0, len(layers) - 1)
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    found = torch.zeros(1, device=boxes.device)
    for number, (layer, x) in enumerate(zip(layers, levels[: len(layers)], strict=True)):
        own = roi_align(x, rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned)
        found = torch.where((level == number)[:, None, None, None], own, found)
    return found
