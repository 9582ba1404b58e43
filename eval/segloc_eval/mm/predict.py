"""What a detector finds in scans, as COCO results."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from segloc_eval.data.scans import Scan
from segloc_eval.mm.data import Example, batches, example, prepared
from segloc_eval.mm.ranks import failing_together, gather_json
from segloc_eval.mm.semantic import SemanticFPN, found_labels
from segloc_eval.recipe import Recipe
from segloc_synth.console import progress
from segloc_train.dist import World, memory_told

AT_ONCE = 8  # scans
Results = list[dict[str, Any]]


def predict(
    detector: Any, scans: list[Scan], category_ids: list[int], recipe: Recipe, device: torch.device
) -> Iterator[Results]:
    """Per scan, in order: COCO results under the scan's `id`.

    Of detectors: image_id, category_id, score, bbox (x, y, w, h), and segmentation with masks. Of semantic
    segmentation: image_id, category_id, segmentation, one for each class found. Masks are compressed RLE in the
    scan's own size.

    click.ClickException when memory runs out, or a scan cannot be read.
    """
    detector.to(device, memory_format=torch.channels_last).eval()

    def make(number: int) -> list[Example]:
        return [example(scan, recipe.size, None) for scan in scans[number * AT_ONCE : (number + 1) * AT_ONCE]]

    load = f"{AT_ONCE} scans of {recipe.size} pixels at once"
    for batch in batches(range(math.ceil(len(scans) / AT_ONCE)), make, device):
        if isinstance(batch, click.ClickException):
            raise batch
        with memory_told(load, "--size"), torch.inference_mode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "To copy construct from a tensor")  # mmdet's own habit
            samples = detector(**prepared(detector, batch, training=False), mode="predict")
        for sample in samples:
            yield list((_labelled if isinstance(detector, SemanticFPN) else _found)(sample, category_ids))


def _found(sample: Any, category_ids: list[int]) -> Iterator[dict[str, Any]]:
    found = sample.pred_instances.cpu()
    masks: NDArray[np.uint8] | None = found.masks.numpy().astype(np.uint8) if "masks" in found else None
    for index in range(len(found)):
        x1, y1, x2, y2 = (round(float(v), 2) for v in found.bboxes[index])
        result = {
            **{"image_id": sample.img_id, "category_id": category_ids[int(found.labels[index])]},
            "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
            "score": round(float(found.scores[index]), 5),
        }
        if masks is not None:
            result["segmentation"] = encode(masks[index])
        yield result


def _labelled(sample: Any, category_ids: list[int]) -> Iterator[dict[str, Any]]:
    labels = found_labels(sample).numpy()
    for label in np.unique(labels):
        if label < len(category_ids):
            category = category_ids[int(label)]
            yield {"image_id": sample.img_id, "category_id": category, "segmentation": encode(labels == label)}


def encode(mask: NDArray[Any]) -> dict[str, Any]:
    """Compressed COCO RLE, as JSON holds it, of a mask's pixels (bool or 0/1, [H, W])."""
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


def predict_shared(
    detector: Any,
    scans: list[Scan],
    category_ids: list[int],
    recipe: Recipe,
    world: World,
    device: torch.device,
    what: str,
) -> list[Results]:
    """`predict` of all scans, on every rank, the work shared among them; `what` names it for the progress line.

    click.ClickException on every rank when one of them cannot go on.
    """
    share = scans[world.rank :: world.size]
    with failing_together(world):
        shown = predict(detector, share, category_ids, recipe, device)
        found = list(progress(shown, len(share), what) if world.first else shown)
    shares = gather_json(found, world)
    return [shares[place % world.size][place // world.size] for place in range(len(scans))]
