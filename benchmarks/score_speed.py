"""How long does scoring take? Ours beside pycocotools', files to numbers, and the bootstrap on top.

Random boxes or small round masks: 1.3 objects and 50 detections a scan, 12 classes, one detection in five near an
object, the others anywhere. Each way reads the same two json files and ends with the twelve COCO numbers. Then, ours
alone: the table of matches, and 1,000 draws of the scans with replacement read from it (AP, AP50, AP75, APs/m/l, and
AP per class). CPU seconds of one core, each way once; the ratio matters, the seconds are this machine's.

  python benchmarks/score_speed.py
  python benchmarks/score_speed.py --images 1000 --json score.json
"""

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segloc_eval.numbers.matches import matches
from segloc_eval.numbers.precision import average_precision, summary
from segloc_eval.numbers.sampling import resample
from segloc_eval.numbers.score import OVERALL, Kind, score
from segloc_synth.files import write_json

SIDE, CLASSES, OBJECTS, DETECTIONS, NEAR = 500, 12, 1.3, 50, 0.2
DRAWS = 1000
GOAL = 4.0


def make(images: int, kind: Kind, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A random data set and results on it."""
    rng = np.random.default_rng(seed)
    counts = 1 + rng.poisson(OBJECTS - 1, images)
    image = np.repeat(np.arange(images), counts)
    size = np.exp(rng.uniform(np.log(16), np.log(200), (len(image), 2)))
    boxes = np.concatenate([rng.uniform(0, 1, size.shape) * (SIDE - size), size], 1)
    labels = rng.integers(1, CLASSES + 1, len(image))
    shown = np.repeat(np.arange(images), DETECTIONS)
    source = np.cumsum([0, *counts[:-1]])[shown] + rng.integers(0, 2**31, len(shown)) % counts[shown]
    near = rng.random(len(shown)) < NEAR
    extent = np.exp(rng.uniform(np.log(16), np.log(200), (len(shown), 2)))
    anywhere = np.concatenate([rng.uniform(0, 1, extent.shape) * (SIDE - extent), extent], 1)
    moved = boxes[source] + rng.normal(0, 0.15, (len(shown), 4)) * np.tile(boxes[source][:, 2:], 2)
    moved[:, :2] = moved[:, :2].clip(0, SIDE - 12)
    moved[:, 2:] = np.minimum(moved[:, 2:].clip(10), SIDE - moved[:, :2])
    found = np.where(near[:, None], moved, anywhere)
    right = near & (rng.random(len(shown)) < 0.8)
    guesses = np.where(right, labels[source], rng.integers(1, CLASSES + 1, len(shown)))
    scores = np.where(near, rng.beta(3, 2, len(shown)), rng.beta(1, 4, len(shown)))
    shape = (lambda box: {"bbox": box}) if kind == "bbox" else (lambda box: {"segmentation": ellipse(box)})
    truth = {
        "images": [{"id": i, "width": SIDE, "height": SIDE, "file_name": f"{i}.png"} for i in range(images)],
        "categories": [{"id": c, "name": f"class {c}"} for c in range(1, CLASSES + 1)],
        "annotations": [
            {
                **{"id": place + 1, "image_id": i, "category_id": c, "bbox": box, "area": box[2] * box[3]},
                **{"iscrowd": 0, **shape(box)},
            }
            for place, (i, c, box) in enumerate(zip(image.tolist(), labels.tolist(), boxes.tolist(), strict=True))
        ],
    }
    results = [
        {"image_id": i, "category_id": c, "score": s, **shape(box)}
        for i, c, s, box in zip(shown.tolist(), guesses.tolist(), scores.tolist(), found.tolist(), strict=True)
    ]
    return truth, results


def ellipse(box: list[float]) -> dict[str, Any]:
    """The RLE of a polygon of 16 corners in the box."""
    angle = np.arange(16) * np.pi / 8
    corners = np.stack([box[0] + box[2] * (1 + np.cos(angle)) / 2, box[1] + box[3] * (1 + np.sin(angle)) / 2], 1)
    rle = coco_mask.frPyObjects([corners.reshape(-1).tolist()], SIDE, SIDE)[0]
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def by_pycocotools(truth: Path, results: Path, kind: Kind) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(truth))
        evaluation = COCOeval(reference, reference.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def by_us(truth: Path, results: Path, kind: Kind) -> list[float]:
    overall = score(json.loads(truth.read_text()), json.loads(results.read_text()), kind)["overall"]
    return [-1.0 if overall[name] is None else overall[name] for name in OVERALL]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    value = work()
    return time.process_time() - start, value


def measure(images: int, kind: Kind) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        truth, results = Path(folder) / "truth.json", Path(folder) / "results.json"
        for path, value in zip((truth, results), make(images, kind), strict=True):
            path.write_text(json.dumps(value))
        ours, numbers = timed(lambda: by_us(truth, results, kind))
        theirs, expected = timed(lambda: by_pycocotools(truth, results, kind))
        data, found = json.loads(truth.read_text()), json.loads(results.read_text())
    matching, table = timed(lambda: matches(data, found, kind))
    weights = resample(images, DRAWS, 0)
    drawing, _ = timed(lambda: summary(average_precision(table, weights)))
    return {
        **{"images": images, "ours": ours, "pycocotools": theirs, "ratio": theirs / ours},
        **{"matches": matching, "draws": drawing},
        "largest_difference": float(np.abs(np.subtract(numbers, expected)).max()),
    }


@click.command(help=__doc__)
@click.option("--images", default=18_000, show_default=True, type=click.IntRange(min=1), help="Scans.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
def main(images: int, json_path: Path | None) -> None:
    kinds: tuple[Kind, ...] = ("bbox", "segm")
    table = {kind: measure(images, kind) for kind in kinds}
    click.echo(f"{images} scans   pycocotools      ours   ratio   matches   {DRAWS} draws   largest difference")
    for kind, row in table.items():
        click.echo(
            f"{kind:13}{row['pycocotools']:11.1f} s{row['ours']:8.1f} s{row['ratio']:8.1f}{row['matches']:8.1f} s"
            f"{row['draws']:11.1f} s{row['largest_difference']:17.1e}"
        )
    click.echo(f"goal: a ratio of {GOAL:g}")
    if json_path:
        write_json(json_path, table)


if __name__ == "__main__":
    main()
