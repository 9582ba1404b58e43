"""Does an exported detector find what the detector finds? The same picture files through both, matched by class.

One side is `segloc-eval predict`'s; the other docs/ONNX.md's consumer, in numpy, pillow, cv2 and onnxruntime.
Detections are matched by class and nearest box. Told are the greatest differences of boxes (pixels) and scores, the
masks that overlap too little, and how many detections have no partner within the limits. `predict` rounds boxes to
hundredths of a pixel and scores to five digits.

  python benchmarks/onnx_parity.py report/run/10pct/seed-0 SCANS --scans 100
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from pycocotools import mask as coco_mask

from segloc_eval.data.scans import Scan
from segloc_eval.mm.export import write_onnx
from segloc_eval.mm.model import load_detector
from segloc_eval.mm.predict import predict
from segloc_synth.sources.images import read_image
from segloc_synth.sources.listing import list_images

PIXELS, SCORE, OVERLAP = 0.05, 1e-3, 0.99
PAGE = Path(__file__).parents[1] / "docs" / "ONNX.md"
Found = list[tuple[int, float, Any, Any]]  # label, score, box [4], mask


def consumer(file: Path) -> Any:
    """docs/ONNX.md's `detect`, of this file."""
    code = PAGE.read_text().split("```python\n")[1].split("```")[0].split("for path in")[0]
    scope: dict[str, Any] = {}
    exec(code.replace("sys.argv[1]", repr(str(file))), scope)
    return scope["detect"]


def by_mmdet(detector: Any, about: Any, paths: list[Path]) -> list[Found]:
    """What predict finds."""
    scans = []
    for number, path in enumerate(paths):
        height, width = read_image(path)[0].shape[:2]
        scans.append(Scan(number, number, path, width, height, ()))
    ids = list(about.classes)
    found = []
    for results in predict(detector, scans, ids, about.recipe, torch.device("cpu")):
        one: Found = []
        for r in results:
            x, y, w, h = r.get("bbox", (0, 0, 0, 0))  # a label map has none
            mask = coco_mask.decode(r["segmentation"]).astype(bool) if "segmentation" in r else None
            one.append((ids.index(r["category_id"]), r.get("score", 1), np.array([x, y, x + w, y + h]), mask))
        found.append(one)
    return found


def compare(ours: Found, theirs: Found) -> tuple[list[tuple[float, float, float, int]], int]:
    """Differences of box and score and overlap of masks of each pair, and how many have no partner within limits."""
    pairs, left = [], list(theirs)
    for label, score, box, mask in ours:
        near = [(np.abs(box - t[2]).max() + abs(score - t[1]), i) for i, t in enumerate(left) if t[0] == label]
        if not near or min(near)[0] > PIXELS + SCORE:
            continue
        other = left.pop(min(near)[1])
        union = 0 if mask is None else (mask | other[3]).sum()  # masks of thin boxes may be empty, on both sides
        differing = (mask ^ other[3]).sum() if union else 0
        overlap = 1 - differing / union if union else 1.0
        pairs.append((float(np.abs(box - other[2]).max()), abs(score - other[1]), overlap, differing))
    return pairs, len(ours) - len(pairs) + len(left)


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--scans", default=100, show_default=True)
def main(weights: Path, folder: Path, scans: int) -> None:
    """Print the comparison."""
    torch.set_num_threads(1)
    every = sorted(folder / name for name, _ in list_images(folder))
    paths = [every[i] for i in np.random.default_rng(0).permutation(len(every))[:scans]]
    detector, about = load_detector(weights)
    if about.detector == "semantic-fpn":
        raise click.ClickException(f"{weights}: finds no objects; name a detector")
    with tempfile.TemporaryDirectory() as room:
        write_onnx(weights, file := Path(room) / "detector.onnx")
        detect = consumer(file)
        start = time.process_time()
        raw = [detect(path) for path in paths]
        spent = 1000 * (time.process_time() - start) / len(paths)
    theirs = []
    for boxes, scores, labels, *masks in raw:
        masks = masks[0] if masks else [None] * len(boxes)
        theirs.append(list(zip(labels.tolist(), scores.tolist(), boxes, masks, strict=True)))
    start = time.process_time()
    ours = by_mmdet(detector, about, paths)
    own = 1000 * (time.process_time() - start) / len(paths)
    found = [compare(*pair) for pair in zip(ours, theirs, strict=True)]
    pairs = np.array([pair for one, _ in found for pair in one] or [(0.0, 0.0, 1.0, 0)])
    few = pairs[pairs[:, 2] < OVERLAP]
    alone, met = sum(number for _, number in found), sum(len(one) for one, _ in found)
    click.echo(f"{len(paths)} scans, {sum(map(len, ours))} detections, {met} pairs; without a partner {alone}")
    click.echo(f"boxes within {pairs[:, 0].max():.3f} px, scores within {pairs[:, 1].max():.1e}")
    most = f", where at most {few[:, 3].max():.0f} pixels differ" if len(few) else ""
    click.echo(f"masks: IoU below {OVERLAP} in {len(few)}{most}; pixels that differ in all: {pairs[:, 3].sum():.0f}")
    click.echo(f"CPU ms a scan, reading included: onnxruntime {spent:.0f}, segloc-eval predict {own:.0f}")


if __name__ == "__main__":
    main()
